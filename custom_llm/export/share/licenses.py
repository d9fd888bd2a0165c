"""The licenses that the Hugging Face hub knows by a short name (huggingface.co/docs/hub/repositories-licenses)."""

from __future__ import annotations

from difflib import get_close_matches

LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl mpl-2.0 odc-by odbl "
    "openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl unknown other"
).split()


def known_license(name: str) -> str | None:
    """The hub's name for a license, or None if it has none.

    >>> known_license("Apache-2.0"), known_license("GPL-3.0-or-later"), known_license("mine")
    ('apache-2.0', 'gpl-3.0', None)
    """
    name = name.lower().removesuffix("-or-later").removesuffix("-only")  # as SPDX has it
    return name if name in LICENSES else None


def license_note(name: str) -> str | None:
    """What to say about a license that the hub does not know; it is kept as it is."""
    if not name or known_license(name):
        return None
    close = get_close_matches(name.lower(), LICENSES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"--license {name}: the Hugging Face hub has no such license, so the card says `other`{hint}"
