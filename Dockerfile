# Two images of one Tidegate: `operator` has Python and nothing more; `agent`, the last and so the usual one, has the two
# tools that the node agent runs as well, and may run everything.
#
#     docker build -t registry.example/tidegate:0.1.0 .
#     docker build --target operator -t registry.example/tidegate-operator:0.1.0 .
#     tidegate install --image registry.example/tidegate:0.1.0 \
#                      --operator-image registry.example/tidegate-operator:0.1.0
#
# None is published. Nobody runs as root by this file: only the agent and the holder do, by their own DaemonSets.

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir hatchling \
 && pip wheel --no-cache-dir --no-build-isolation --constraint constraints.txt --wheel-dir /wheels '.[cluster]'

FROM python:3.12-slim AS operator
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels 'tidegate[cluster]' \
 && rm -rf /wheels
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["tidegate"]

FROM operator AS agent
USER 0:0
# nft keeps the gate's redirect, iptables' -legacy saves read rules that nftables has not; all else is read over netlink.
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables nftables \
 && rm -rf /var/lib/apt/lists/*
USER 65532:65532
