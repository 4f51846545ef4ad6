"""Stories of what Kubernetes adds to CEL: one rule per function, some values each."""

from __future__ import annotations

from tests.realcluster.stories_custom import Gizmos, root
from tests.realcluster.twin import Side

FUNCTIONS = (
    ("isURL(self)", ("https://x.org/p?q=1", "/p", "x.org", "ht tp://x")),
    ("url(self).getHost() == 'x:80' && url(self).getPort() == '80'", ("http://x:80", "http://u@x:80/p", "nope")),
    ("url(self).getEscapedPath() == '/a%20b' && url(self).getQuery()['k'] == ['v']", ("http://x/a%20b?k=v", "/a")),
    ("quantity(self).isLessThan(quantity('1Gi'))", ("500Mi", "2Gi", "1.5", "x")),
    ("quantity(self).add(quantity('1k')).compareTo(quantity('2k')) == 0", ("1k", "1000", "1Ki")),
    ("isQuantity(self) && quantity(self).isInteger() && quantity(self).asInteger() > 5", ("6", "5", "6.5", "x")),
    ("sign(quantity(self).sub(1)) == -1", ("500m", "1", "2")),
    ("isIP(self) && ip(self).family() == 6", ("fd00::1", "10.0.0.1", "::ffff:1.2.3.4", "x")),
    ("ip(self).isLoopback()", ("127.0.0.1", "10.0.0.1", "256.0.0.1")),
    ("cidr('10.0.0.0/8').containsIP(self)", ("10.1.1.1", "11.1.1.1", "x")),
    ("cidr(self).prefixLength() == 8 && cidr(self).masked() == cidr('10.0.0.0/8')", ("10.1.1.1/8", "10.0.0.0/9")),
    ("cidr('10.0.0.0/8').containsCIDR(self)", ("10.1.0.0/16", "0.0.0.0/0")),
    ("semver(self).isGreaterThan(semver('1.2.0'))", ("1.10.0", "1.2.0-rc.1", "1.2", "x")),
    ("isSemver(self) && semver(self).major() == 1", ("1.0.0", "v1.0.0", "2.0.0+b")),
    ("self.find('[0-9]+') == '42'", ("a42b", "4", "a")),
    ("self.findAll('[ab]').size() == 2", ("a-b", "a", "abab")),
    ("self.matches('^a.c$')", ("abc", "ab")),
    ("self.split(',').map(x, int(x)).sum() == 6", ("1,2,3", "1,2", "a,b")),
    ("sets.equivalent(self.split(','), ['a', 'b'])", ("b,a", "a", "b,a,b")),
    ("self.lowerAscii().trim().replace('x', 'y').substring(1) == 'by'", ("ABX ", "x")),
    ("self.indexOf('b') == 1 && self.charAt(0) == 'a' && self.upperAscii() == 'AB'", ("ab", "ba")),
    ("'%s-%d'.format([self, 3]) == 'a-3'", ("a", "b")),
    ("duration(self) > duration('1m')", ("90s", "30s", "x")),
    ("timestamp(self).getFullYear() == 2026", ("2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "x")),
    ("self.split('').exists_one(c, c == 'a')", ("ab", "aa")),
    ("int(self) % 2 == 0 || double(self) > 10.5", ("2", "11", "3", "x")),
    ("size(self) > 2 ? self.startsWith('a') : self.endsWith('b')", ("abc", "bcd", "ab", "ba")),
    ("self in ['a', 'b'] && self.contains('a')", ("a", "b")),
    ("optional.of(self).orValue('x') == 'a' && optional.none().orValue('a') == 'a'", ("a", "b")),
)  # fmt: skip


async def custom_functions(side: Side) -> None:
    """What Kubernetes adds to CEL."""
    gizmos = Gizmos(side, "functions")
    spec = {
        f"r{at}": {"type": "string", "maxLength": 30, "x-kubernetes-validations": [{"rule": rule}]}
        for at, (rule, _) in enumerate(FUNCTIONS)
    }
    await gizmos.define(root(spec))
    for at, (_, texts) in enumerate(FUNCTIONS):
        for number, text in enumerate(texts):
            await gizmos.post(f"g{at}-{number}", spec={f"r{at}": text}, dryRun="All")
    await gizmos.drop()


STORIES = [custom_functions]
