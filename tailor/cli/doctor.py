"""`tailor doctor`."""

from tailor import api
from tailor.cli.output import Answer


def doctor() -> Answer:
    """Hardware, versions and extras: what will work here, and what of it was tested."""
    found = api.doctor()
    lines = [f"python {found['python']} · tailor {found['versions']['tailor']}"]
    lines += [f"device {device['kind']}: {device['note']}" for device in found["devices"]]
    lines.append(
        f"memory: {found['memory_bytes'] / 2**30:.0f} GiB · cores: {found['cores']} · threads: {found['threads']}"
    )
    lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    for name, extra in found["extras"].items():
        lines.append(f"extra {name}: {'installed' if extra['installed'] else extra['fix']}")
    lines.append(f"hub: {'closed (HF_HUB_OFFLINE)' if found['offline'] else 'open'}")
    return Answer(found, "\n".join(lines))
