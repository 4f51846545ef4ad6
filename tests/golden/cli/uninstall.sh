# How Tidegate VERSION is taken away. Nothing is done by printing this; run it step by step.

# 1. What is held is nobody's afterwards: restore or drain it first.
tidegate status --orphans -A

# 2. No pod gets a gate any more. Those that have one keep it until they are made anew: restart their owners.
kubectl delete --ignore-not-found mutatingwebhookconfiguration/tidegate

# 3. Releases end while the operator is there to put right what they changed; then it goes, while there are holders
# for its own gate. Deployments and Services stay as they are.
kubectl delete releases.tidegate.dev --all -A --timeout=1m
kubectl -n tidegate-system delete deployment tidegate-operator
kubectl -n tidegate-system wait --for=delete pod -l app.kubernetes.io/component=operator --timeout=2m

# 4. Take the hook /gate/CONTAINER out of these, and let them roll out: without a holder a gate is an error to the
# kubelet, and the pod is told to stop at once.
kubectl get deploy,sts,ds -A -o jsonpath='{range .items[*]}{.metadata.namespace} {.kind}/{.metadata.name} {.spec.template.spec.containers[*].lifecycle.preStop.httpGet.path}{"\n"}{end}' | grep /gate/

# 5. No more epochs, then no more holds. An agent ends when its last hold is over.
kubectl -n tidegate-system delete deployment tidegate-coordinator
kubectl -n tidegate-system delete daemonset tidegate-agent tidegate-holder
kubectl -n tidegate-system wait --for=delete pod -l app.kubernetes.io/name=tidegate --timeout=5m

# 6. The table `inet tidegate` is the only thing that stays in a node's kernel: this takes it away everywhere. The
# image is the one that is installed: name it with --image.
kubectl -n tidegate-system apply -f - <<'END'
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: tidegate-sweep
  namespace: tidegate-system
  labels:
    app.kubernetes.io/name: tidegate
    app.kubernetes.io/component: sweep
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: tidegate
      app.kubernetes.io/component: sweep
  updateStrategy:
    type: RollingUpdate
  template:
    metadata:
      labels:
        app.kubernetes.io/name: tidegate
        app.kubernetes.io/component: sweep
    spec:
      priorityClassName: system-node-critical
      hostNetwork: true
      nodeSelector:
        kubernetes.io/os: linux
      tolerations:
      - operator: Exists
      terminationGracePeriodSeconds: 0
      automountServiceAccountToken: false
      containers:
      - name: sweep
        image: tidegate:VERSION
        command:
        - sh
        - -c
        - nft add table inet tidegate && nft delete table inet tidegate && touch /tmp/swept && exec sleep 3600
        readinessProbe:
          exec:
            command: [test, -e, /tmp/swept]
          periodSeconds: 1
        securityContext:
          runAsUser: 0
          capabilities:
            drop: [ALL]
            add: [NET_ADMIN]
          seccompProfile:
            type: RuntimeDefault
END
kubectl -n tidegate-system rollout status daemonset tidegate-sweep --timeout=5m
kubectl -n tidegate-system delete daemonset tidegate-sweep

# 7. The fence goes with the namespace. Where an object of our kinds has a finalizer left, take it off: kubectl patch
# ... --type merge -p '{"metadata":{"finalizers":null}}'.
kubectl delete --ignore-not-found clusterrole/tidegate-drain-nodes clusterrole/tidegate-releaser clusterrole/tidegate-prepare clusterrole/tidegate-drain clusterrole/tidegate-cut clusterrole/tidegate-view clusterrole/tidegate-look clusterrolebinding/tidegate-release clusterrole/tidegate-release clusterrolebinding/tidegate-operator clusterrole/tidegate-operator clusterrolebinding/tidegate-agent clusterrole/tidegate-agent clusterrolebinding/tidegate-coordinator clusterrole/tidegate-coordinator
kubectl delete --ignore-not-found customresourcedefinition/releases.tidegate.dev customresourcedefinition/observers.tidegate.dev customresourcedefinition/drains.tidegate.dev
kubectl delete namespace tidegate-system

# 8. What stays: /var/lib/tidegate on every node, with its ledger; annotations and labels tidegate.dev/... on pods and
# Services; bindings that you made; labels that `prepare` gave (`tidegate prepare --abort` takes them back).
