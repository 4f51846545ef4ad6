# One image for agents, holders and coordinator: Python, Tidegate, and the two tools that the agent runs on its node.
#
#     docker build -t registry.example/tidegate:0.1.0 .
#     tidegate install --image registry.example/tidegate:0.1.0
#
# None is published. Nobody runs as root by this file: only the agent and the holder do, by their own DaemonSets.

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir hatchling \
 && pip wheel --no-cache-dir --no-build-isolation --constraint constraints.txt --wheel-dir /wheels '.[cluster]'

FROM python:3.12-slim
# nft keeps the gate's redirect, iptables' -legacy saves read rules that nftables has not; all else is read over netlink.
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables nftables \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels 'tidegate[cluster]' \
 && rm -rf /wheels
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["tidegate"]
