#!/usr/bin/env python3
# ruff: noqa
# fmt: off
"""Parity runner: replays kubectl stories against a Kubernetes API server and compares what a user sees.

    run.py record  KUBECONFIG cases.yaml out.json     [options]
    run.py compare KUBECONFIG cases.yaml golden.json  [options] [--json]

Options: --only REGEX (case ids)  --jobs N (parallel cases, default 4; cases with `serial: true` run alone)
         --retries N (rerun a case that fails or differs; default record 1, compare 0)
         --var NAME=VALUE (override a variable of the case file, e.g. IMAGE)  --skip TAG[,TAG] (skip cases whose
         `needs` lists a tag)  --keep (leave the namespaces)  --prefix acc (namespace prefix)
kubectl comes from $KUBECTL or PATH. Needs Python 3.9+ and PyYAML.

Case file: {vars: {NAME: text}, files: {name: text}, cases: [case]}
case: id, about, rows (matrix rows), needs [tags], serial, files {name: text}, steps [step], cleanup [step]
step: exactly one of
  cmd: kubectl arguments (string, split like a shell but with backslashes kept; or a list)
       stdin: text; rc: expected exit code (int, list, or any = not compared); timeout: seconds (default 60)
       until: regex - run again every 0.25 s until rc and stdout+stderr match (at most `timeout`)
       hold: seconds - with until: it must go on matching for so long
       match / nomatch: regex that stdout+stderr must (not) match, in record and in compare
       out / err: list of filters before comparing: none | sort | uniq | squash | {keep: re} | {drop: re} |
                  {sub: [re, text]} | {head: n}   (default: everything, in order)
       capture: {NAME: regex with a group | true}; the value is shown as <NAME> afterwards (not if NAME starts with _)
       bg: NAME - start in the background; finish with `stop` or `join`
  stop: NAME (end a background step now)   join: NAME (wait for its own end); both take out/err/rc/match
  await: NAME + until: regex               wait until a background step has printed something (capture: VAR takes group 1)
  sleep: seconds | write: {file: text} | cat: file | http: URL (prints status and body)
{{NAME}} is replaced in cmd, stdin, files, until and match. Built in: NS (namespace of the case), RUN_ID, DIR.
"""
import argparse, concurrent.futures as cf, difflib, json, os, re, shlex, shutil, signal, subprocess, sys, tempfile
import threading, time, urllib.request
import yaml

KUBECTL = os.environ.get("KUBECTL") or shutil.which("kubectl") or "kubectl"
SAFE = "bcdfghjklmnpqrstvwxz2456789"
RULES = [(re.compile(p, f), r) for p, f, r in [
    (r"^.*(MissingClusterDNS|openshift-service-ca).*\n?", re.M, ""),
    (r"^[EWIF]\d{4} \d\d:\d\d:\d\d\.\d+.*\n?", re.M, ""),
    (r"eyJ[\w-]+\.[\w-]+\.[\w-]+", 0, "<JWT>"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", 0, "<UID>"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?Z| ?[+-]\d\d:?\d\d)?", 0, "<TIME>"),
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", 0, "<TIME>"),
    (r"https?://(127\.0\.0\.1|localhost|\[::1\]):\d+", 0, "<SERVER>"),
    (r"(containerd|docker|cri-o|process|lab)://[0-9a-zA-Z_.-]+", 0, "<CID>"),
    (r"\bsha256:[0-9a-f]{64}\b", 0, "<SHA>"),
    (r"\b[0-9a-f]{64}\b", 0, "<CID>"),
    (r"/tmp/(LIVE|MERGED)-\d+/", 0, r"<TMP>/\1/"),
    (r'("?resourceVersion"?: ?)"?\d+"?', 0, r"\1<RV>"),
    (r"(resourceVersion[=:] ?)\d+", 0, r"\1<RV>"),
    (r"(resource version to be \d+, was )\d+", 0, r"\1<RV>"),
    (r"too old resource version: \d+ \(\d+\)", 0, "too old resource version: <RV> (<RV>)"),
    (r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}/\d+\b", 0, "<CIDR>"),
    (r"\b(?!0\.0\.0\.0|127\.0\.0\.1)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", 0, "<IP>"),
    (r"(pod-template-hash[\"']?[=: ]+\"?)[%s]{5,10}" % SAFE, 0, r"\1<HASH>"),
    (r"-(?=[%s]*[0-9])[%s]{8,10}-[%s]{5}\b" % (SAFE, SAFE, SAFE), 0, "-<HASH>-<SUF>"),
    (r"-(?=[%s]*[0-9])[%s]{8,10}\b" % (SAFE, SAFE), 0, "-<HASH>"),
    (r"-<HASH>-[%s]{5}\b" % SAFE, 0, "-<HASH>-<SUF>"),
    (r"\.[0-9a-f]{16}\b", 0, ".<EV>"),
    (r"-[%s]{5}(?![\w.-])" % SAFE, 0, "-<SUF>"),
    (r"\bkube-api-access-\w{5}\b", 0, "kube-api-access-<SUF>"),
    (r"(?<=:)3[0-2]\d{3}(?=/(TCP|UDP|SCTP))", 0, "<NODEPORT>"),
    (r'("?nodePort"?: ?)\d{5}', 0, r"\1<NODEPORT>"),
    (r"\(x\d+ over [^)]*\)", 0, "(x<N> over <AGE>)"),
    (r"(?:\d+[dhms]){1,2} ago", 0, "<AGE> ago"),
    (r"(?<![\w=.:<-])(?:\d+(?:\.\d+)?(?:ms|[yhdms])){1,3}(?![\w.=-])", 0, "<AGE>"),
    (r"<invalid>", 0, "<AGE>"),
    (r"(?<=\S)  +", 0, "  "),
    (r"[ \t]+$", re.M, ""),
]]


def split(s):
    """like a shell, but a backslash is only a backslash"""
    lex = shlex.shlex(s, posix=True)
    lex.whitespace_split, lex.escape, lex.commenters = True, "", ""
    return list(lex)


class CaseFail(Exception):
    pass


def kube(args, env, cwd=None, stdin=None, timeout=60):
    p = subprocess.Popen([KUBECTL] + args, env=env, cwd=cwd, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        out, err = p.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        return 124, out, err + "\n<runner timeout>\n"
    return p.returncode, out, err


class Bg:
    def __init__(self, args, env, cwd, stdin=None):
        self.out, self.err = [], []
        self.p = subprocess.Popen([KUBECTL] + args, env=env, cwd=cwd, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        if stdin is not None:
            self.p.stdin.write(stdin); self.p.stdin.close()
        self.t = [threading.Thread(target=self.pump, args=x, daemon=True) for x in ((self.p.stdout, self.out), (self.p.stderr, self.err))]
        for t in self.t:
            t.start()

    def pump(self, f, to):
        while True:
            c = f.read(1)
            if not c:
                return
            to.append(c)

    def text(self):
        return "".join(self.out), "".join(self.err)

    def end(self, kill, timeout=60):
        if kill:
            self.p.send_signal(signal.SIGKILL)
        try:
            self.p.wait(timeout)
        except subprocess.TimeoutExpired:
            self.p.kill(); self.p.wait()
            self.err.append("\n<runner timeout>\n")
        for t in self.t:
            t.join(2)
        return (0 if kill else self.p.returncode,) + self.text()


class Run:
    def __init__(self, case, doc, opt, base, n):
        self.case, self.opt = case, opt
        self.vars = dict(doc.get("vars") or {})
        self.vars.update(opt.vars)
        self.run_id = "%s%d" % (opt.run_id, n)
        self.ns = "%s-%s" % (opt.prefix, self.run_id)
        self.vars.update(NS=self.ns, RUN_ID=self.run_id)
        self.mask = [(self.ns, "<NS>"), (self.run_id, "<RUN>")]
        self.mask += [(str(v), "<%s>" % k) for k, v in self.vars.items() if len(str(v)) > 3 and k not in ("NS", "RUN_ID")]
        self.dir = tempfile.mkdtemp(prefix="parity-")
        self.vars["DIR"] = self.dir
        self.mask += [(x, "<NODE>") for x in opt.nodes]
        self.kc = os.path.join(self.dir, ".kubeconfig")
        shutil.copy(base, self.kc)
        self.env = dict(os.environ, KUBECONFIG=self.kc, HOME=self.dir, KUBECTL_EXTERNAL_DIFF="diff -u -N", TZ="UTC", KUBECACHEDIR=opt.cache)
        self.bg = {}
        self.files = dict(doc.get("files") or {})
        self.files.update(case.get("files") or {})

    def sub(self, s):
        for _ in range(3):
            s2 = re.sub(r"\{\{(\w+)\}\}", lambda m: str(self.vars.get(m[1], m[0])), s)
            if s2 == s:
                break
            s = s2
        return s

    def norm(self, s):
        s = s.replace(self.dir + "/", "").replace(self.dir, ".")
        for v, n in sorted(self.mask, key=lambda x: -len(x[0])):
            s = re.sub(r"(?<![A-Za-z0-9_.])%s(?![A-Za-z0-9_])" % re.escape(v), n, s)
        for p, r in RULES:
            s = p.sub(r, s)
        return s.strip("\n")

    def filt(self, s, fs):
        lines = s.split("\n") if s else []
        for f in ([fs] if isinstance(fs, (str, dict)) else fs or []):
            if f == "none":
                return "(not compared)"
            elif f == "sort":
                lines = sorted(lines)
            elif f == "uniq":
                seen = set(); lines = [x for x in lines if not (x in seen or seen.add(x))]
            elif f == "squash":
                lines = [x for i, x in enumerate(lines) if i == 0 or x != lines[i - 1]]
            elif "keep" in f:
                lines = [x for x in lines if re.search(f["keep"], x)]
            elif "drop" in f:
                lines = [x for x in lines if not re.search(f["drop"], x)]
            elif "sub" in f:
                lines = re.sub(f["sub"][0], f["sub"][1], "\n".join(lines), flags=re.M).split("\n")
            elif "head" in f:
                lines = lines[: f["head"]]
            else:
                raise ValueError("unknown filter %r" % (f,))
        return "\n".join(lines)

    def write(self, name, text):
        p = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(p), exist_ok=True)
        with open(p, "w") as f:
            f.write(self.sub(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False)))

    def good(self, st, rc, out, err):
        want = st.get("rc", 0)
        if want != "any" and rc not in (want if isinstance(want, list) else [want]):
            return "exit code %s, expected %s" % (rc, want)
        both = out + "\n" + err
        if "until" in st and not re.search(self.sub(st["until"]), both, re.M):
            return "no match for until %r" % st["until"]
        if "match" in st and not re.search(self.sub(st["match"]), both, re.M):
            return "no match for %r" % st["match"]
        if "nomatch" in st and re.search(self.sub(st["nomatch"]), both, re.M):
            return "matches %r" % st["nomatch"]

    def step(self, st):
        """returns (shown command, rc, out, err) or None for a silent step"""
        if "sleep" in st:
            time.sleep(st["sleep"]); return None
        if "write" in st:
            for k, v in st["write"].items():
                self.write(k, v)
            return None
        if "await" in st:
            end = time.time() + st.get("timeout", 30)
            while time.time() < end:
                m = re.search(self.sub(st["until"]), "\n".join(self.bg[st["await"]].text()), re.M)
                if m:
                    if "capture" in st:
                        self.vars[st["capture"]] = m[1]
                    return None
                time.sleep(0.05)
            raise CaseFail("await %s: no match for %r; got %r" % (st["await"], st["until"], self.bg[st["await"]].text()))
        if "cat" in st:
            with open(os.path.join(self.dir, self.sub(st["cat"])), errors="replace") as f:
                return "cat " + st["cat"], 0, f.read(), ""
        if "http" in st:
            url, last = self.sub(st["http"]), None
            for _ in range(20):
                try:
                    with urllib.request.urlopen(url, timeout=5) as r:
                        return "http " + st["http"], 0, "%d\n%s" % (r.status, r.read().decode()), ""
                except OSError as e:
                    last = e; time.sleep(0.2)
            return "http " + st["http"], 1, "", str(last)
        if "stop" in st or "join" in st:
            k = st.get("stop") or st.get("join")
            rc, out, err = self.bg.pop(k).end("stop" in st, st.get("timeout", 60))
            why = self.good(st, rc, out, err)
            if why:
                raise CaseFail("%s %s: %s\n%s%s" % ("stop" if "stop" in st else "join", k, why, out, err))
            return ("stop " if "stop" in st else "join ") + k, rc, out, err
        c = st["cmd"]
        args = [self.sub(a) for a in (split(c) if isinstance(c, str) else [str(x) for x in c])]
        stdin = self.sub(st["stdin"]) if "stdin" in st else None
        if "bg" in st:
            self.bg[st["bg"]] = Bg(args, self.env, self.dir, stdin)
            return None
        end, held = time.time() + st.get("timeout", 60), None
        while True:
            rc, out, err = kube(args, self.env, self.dir, stdin, st.get("timeout", 60))
            why = self.good(st, rc, out, err)
            if "until" not in st:
                break
            if not why:
                held = held or time.time()
                if time.time() - held >= st.get("hold", 0):
                    break
            else:
                held = None
                if time.time() > end:
                    break
            time.sleep(0.25)
        if why:
            raise CaseFail("kubectl %s: %s\n%s%s" % (" ".join(args), why, out, err))
        for n, rx in (st.get("capture") or {}).items():
            m = re.search(r"(?s)\s*(.*?)\s*$" if rx is True else rx, out, re.M if rx is not True else 0)
            if not m:
                raise CaseFail("capture %s: no match in %r" % (n, out))
            self.vars[n] = m[1]
            if not n.startswith("_") and len(m[1]) > 1:
                self.mask.append((m[1], "<%s>" % n))
        return "kubectl " + (c if isinstance(c, str) else shlex.join(map(str, c))), rc, out, err

    def go(self):
        rec, error = [], None
        try:
            rc, out, err = kube(["create", "namespace", self.ns], self.env)
            if rc:
                raise CaseFail("create namespace: " + err)
            kube(["config", "set-context", "--current", "--namespace=" + self.ns], self.env)
            end = time.time() + 20  # the default service account must be there before pods
            while kube(["get", "sa", "default"], self.env)[0] and time.time() < end:
                time.sleep(0.1)
            for k, v in self.files.items():
                self.write(k, v)
            for st in self.case["steps"]:
                r = self.step(st)
                if r:
                    rec.append({"cmd": r[0], "rc": "any" if st.get("rc") == "any" else r[1], "out": self.filt(self.norm(r[2]), st.get("out")),
                                "err": self.filt(self.norm(r[3]), st.get("err"))})
        except CaseFail as e:
            error = self.norm(str(e))
        finally:
            for b in self.bg.values():
                b.end(True)
            self.bg = {}
            for st in self.case.get("cleanup") or []:
                try:
                    self.step(dict(st, rc="any"))
                except Exception:
                    pass
            if not self.opt.keep:
                kube(["delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"], self.env)
                kube(["delete", "namespace", self.ns, "--wait=false"], self.env)
            shutil.rmtree(self.dir, ignore_errors=True)
        return rec, error


def diff(want, got):
    """unified diff of two recordings of a case"""
    def text(rec):
        r = []
        for s in rec:
            r.append("$ %s   # exit %s" % (s["cmd"], s["rc"]))
            r += s["out"].split("\n") if s["out"] else []
            r += ["! " + x for x in s["err"].split("\n")] if s["err"] else []
        return r
    return list(difflib.unified_diff(text(want), text(got), "golden", "server", lineterm="", n=2))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("mode", choices=["record", "compare"])
    ap.add_argument("kubeconfig"); ap.add_argument("cases"); ap.add_argument("golden")
    ap.add_argument("--json", action="store_true")
    ap.add_argument("--only"); ap.add_argument("--skip", default="")
    ap.add_argument("--jobs", type=int, default=4)
    ap.add_argument("--retries", type=int)
    ap.add_argument("--var", action="append", default=[])
    ap.add_argument("--keep", action="store_true")
    ap.add_argument("--prefix", default="acc")
    opt = ap.parse_args()
    opt.vars = dict(v.split("=", 1) for v in opt.var)
    opt.run_id = "%s" % format(int(time.time()) % 46656 * 10 + os.getpid() % 10, "x")
    if opt.retries is None:
        opt.retries = 1 if opt.mode == "record" else 0
    with open(opt.cases) as f:
        doc = yaml.safe_load(f)
    cases = [c for c in doc["cases"] if not opt.only or re.search(opt.only, c["id"])]
    skip = set(filter(None, opt.skip.split(",")))
    skipped = [c["id"] for c in cases if skip & set(c.get("needs") or [])]
    cases = [c for c in cases if c["id"] not in skipped]
    golden = {}
    if opt.mode == "compare" or (opt.only and os.path.exists(opt.golden)):
        with open(opt.golden) as f:
            golden = json.load(f)
    tmp = tempfile.mkdtemp(prefix="parity-")
    opt.cache = os.path.join(tmp, "cache")
    base = os.path.join(tmp, "kubeconfig")
    env = dict(os.environ, KUBECONFIG=os.path.abspath(opt.kubeconfig))
    rc, out, err = kube(["config", "view", "--raw", "--flatten"], env)
    if rc:
        sys.exit("cannot read %s: %s" % (opt.kubeconfig, err))
    with open(os.open(base, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
        f.write(out)
    env["KUBECONFIG"] = base
    ver = json.loads(kube(["version", "-o", "json"], env)[1] or "{}")
    opt.nodes = kube(["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"], env)[1].split()
    num = {c["id"]: i + 1 for i, c in enumerate(doc["cases"])}
    lock, results, n = threading.Lock(), {}, [0]

    def one(c):
        t0 = time.time()
        for a in range(opt.retries + 1):
            rec, error = Run(c, doc, opt, base, num[c["id"]] + 1000 * a).go()
            d = []
            if opt.mode == "compare" and not error:
                want = (golden.get("cases") or {}).get(c["id"])
                if want is None:
                    error = "not in the golden file"
                else:
                    d = diff(want["steps"], rec)
            if opt.mode == "compare" and error and golden.get("cases", {}).get(c["id"]):
                d = diff(golden["cases"][c["id"]]["steps"][: len(rec) + 1], rec)
            if not error and not d:
                break
        with lock:
            ok = not error and not d
            results[c["id"]] = {"ok": ok, "error": error, "diff": d, "rec": rec, "seconds": round(time.time() - t0, 1), "tries": a + 1}
            if not opt.json:
                print("%s  %s  (%.1f s%s)" % ("PASS" if ok else "DIFF", c["id"], time.time() - t0, ", try %d" % (a + 1) if a else ""), flush=True)
                if error:
                    print("    " + error.replace("\n", "\n    "))
                if d:
                    print("    " + "\n    ".join(d), flush=True)

    par = [c for c in cases if not c.get("serial")]
    ser = [c for c in cases if c.get("serial")]
    with cf.ThreadPoolExecutor(opt.jobs) as ex:
        list(ex.map(one, par))
    for c in ser:
        one(c)
    shutil.rmtree(tmp, ignore_errors=True)
    passed = sum(r["ok"] for r in results.values())
    if opt.mode == "record":
        sv = (ver.get("serverVersion") or {}).get("gitVersion", "?")
        old = golden.get("cases") or {}
        for c in cases:
            r = results[c["id"]]
            if r["ok"]:
                old[c["id"]] = {"steps": r["rec"]}
        order = [c["id"] for c in doc["cases"] if c["id"] in old]
        with open(opt.golden, "w") as f:
            json.dump({"meta": {"server": sv, "kubectl": (ver.get("clientVersion") or {}).get("gitVersion", "?")},
                       "cases": {k: old[k] for k in order}}, f, indent=1, ensure_ascii=False)
            f.write("\n")
    if opt.json:
        print(json.dumps({"passed": passed, "failed": len(results) - passed, "skipped": skipped,
                          "cases": {k: {x: r[x] for x in ("ok", "error", "diff", "seconds", "tries")} for k, r in sorted(results.items())}}, indent=1))
    else:
        if skipped:
            print("skipped: " + ", ".join(skipped))
        print("%d passed, %d failed" % (passed, len(results) - passed))
    sys.exit(0 if passed == len(results) else 1)


if __name__ == "__main__":
    main()
