"""The twenty migrations of the time before the first release, which `001_baseline.sql` replaces.

A database that has all of them, unchanged, has what the baseline makes: its record is read as a record of the baseline,
and nothing is written for it. A database that has some of them is refused, because no file of this version continues
where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.files import BASELINE, DeliveredSchema
from containerstacks_billing.schema.history import Recorded

# Number: name, SHA-256 of the text.
REPLACED = {
    1: ("containerstacks", "77c5c4256bcca46443204c10665e893046dd6536159bdbeb1a399b5008328d72"),
    12: ("billing_daemon_status", "4bef40d3da52e0c6049e4d540297fb41f35a9df922a3880d9cf1b3a936b54eda"),
    13: ("adopt_containerstacks", "0c3ef4ff96742b409dcf9859858479d8e857ee811f7e33c4ffd124392c620b40"),
    14: ("runs_and_leases", "66b9566b1960b3a7ceac0b22b8747208f9759b17265999cd9bc642f8abb7974f"),
    15: ("prices", "1548503c74af5f964c379b4e3dd9e9b5d62bc5c8bf47d95eb4d524d44b19e1b9"),
    16: ("metering", "0a4eaa4c261bae29539b496133eb74b1dee306368dfd6d3a58784618b0b4df1b"),
    17: ("quarantine_and_holds", "a72191000cefe81f73acea288de65a6059e0816e62e62a90c9b87532bfc00dc7"),
    18: ("charging", "5a8d849faa6c22fbb7b90fdc02fba8ab964b9128a5b5d19e7a3cc8f6736fbe9a"),
    19: ("events", "fb0cc29808811c6a0a6171cdb3d3b476d1b3dfc936cb79aa5a8a3817173735ec"),
    20: ("price_corrections", "c4aac80bbffd71dfb2aec4949b29538f585cb221a1003a608ee20a7ca7564309"),
    21: ("holds", "6753fc3ba37f431bbe6f7c1eca799de0a33772a0fb41e4772348ee2127e4b4fb"),
    23: ("tokens", "7ad07da9e493cea32f06c5e8ac9fcb787463f57ea2cacdef20a98a4bb5cd0c31"),
    24: ("what_is_shown", "c1acb7989cec61e56fda07cf15ca6f738746f5254c1069a5b1c6709b47fca4ad"),
    25: ("bulk_changes", "779c9af6306b131ee239ef6ba50eee5b33208318a5eb036d1fdb4347c2da82ba"),
    26: ("prices_and_clocks", "cafda2711c7484a95cde732baaf079f6efe95efde3112ef1344191f6ce57e785"),
    27: ("kept_stretches", "4fa0c177b2812ab33e5bb266b7c7ad98ba90d04a0acb9a68b43b2cf8b440a77e"),
    28: ("least_privilege", "f7e78255a6e0d7c63ed6770c41e0f4ce047199dfd8e73d2a069e35bde751fc9e"),
    29: ("prices_one_at_a_time", "1a8474c99ecb237bc486ed7779c3310d2db41719859bf6520ec67b7531956df6"),
    30: ("believable_dates", "6ef6add8abee065f803c45b563e3c162dddbe91ac3ee0c2896bbb72ae0e89ec8"),
    31: ("hold_organizations", "333a985b528e7988e9475013aaa67f16e5d9922789246e92019f4bb6018d9e7d"),
}
_STATUS_TABLE = 12  # a file of this version too


def with_baseline(record: Mapping[int, Recorded], delivered: DeliveredSchema) -> dict[int, Recorded]:
    """Return a record in which all of the replaced migrations stand as the baseline.

    A record without any of them is returned as it is. Raises SchemaMismatch when it holds some of them, or one whose
    text was another.
    """
    replaced = {
        version: one for version, one in record.items() if REPLACED.get(version, ("",))[0] == one.name
    }
    if not replaced.keys() - {_STATUS_TABLE}:
        return dict(record)
    for version, one in replaced.items():
        if one.checksum != REPLACED[version][1]:
            raise SchemaMismatch(
                f"The migration {version:03}_{one.name}.sql was changed before it was applied"
                f" on {one.applied_at:%Y-%m-%d}.",
                "What it made is unknown: restore a backup from before it, then run `containerstacks-billing migrate`.",
            )
    if missing := [version for version in REPLACED if version not in replaced]:
        raise SchemaMismatch(
            f"The database has {len(replaced)} of the {len(REPLACED)} migrations that 001_baseline.sql replaces; "
            f"the first that is missing is {missing[0]:03}_{REPLACED[missing[0]][0]}.sql.",
            "Run `containerstacks-billing migrate` of the version that applied them, which has all, then this one's.",
        )
    folded = {version: one for version, one in record.items() if version not in REPLACED}
    last = replaced[max(REPLACED)]
    for file in delivered.tables:
        if file.version == BASELINE:
            duration = sum(one.duration_ms or 0 for one in replaced.values())
            folded[BASELINE] = Recorded(BASELINE, file.name, file.checksum, last.applied_at, duration)
        elif file.version == _STATUS_TABLE:
            folded[_STATUS_TABLE] = replace(replaced[_STATUS_TABLE], checksum=file.checksum)
    return folded
