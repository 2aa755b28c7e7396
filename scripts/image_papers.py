"""What goes with an image: its bill of materials, and how it was made. Both are the same for the same image, and the
image for the same commit and base, once what the builder made up at random is out of it.

image_papers.py settle ARCHIVE SETTLED
image_papers.py bill ROOT VERSION EPOCH
image_papers.py provenance CONTEXT COMMIT BASE BASE_DIGEST DIGEST NAME FILE...
"""

import hashlib
import io
import json
import re
import sys
import tarfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

INPUTS = ("deploy/Dockerfile", "requirements.lock", "scripts/locks/build.lock")
"""Of the repository: what says by hash all that is fetched from elsewhere."""
BUILD_TYPE = "urn:sluice:image:1"
"""docs/image.md says what it stands for."""


def settle(archive: Path, settled: Path) -> str:
    """Writes the docker-archive of an image again without the names of the containers that it was built in: buildah
    has them in the image's configuration, new with each build. Layers stay as they are. The image's new ID.

    https://github.com/moby/docker-image-spec/blob/main/spec.md (no field of it is left out)
    """
    with tarfile.open(archive) as made, tarfile.open(settled, "w", format=tarfile.USTAR_FORMAT) as written:
        (manifest,) = json.loads(_member(made, "manifest.json"))
        config = json.loads(_member(made, manifest["Config"]))
        for name in ("container", "container_config"):
            config.pop(name, None)
        config["config"].pop("Hostname", None)
        text = json.dumps(config, separators=(",", ":")).encode()
        identity = hashlib.sha256(text).hexdigest()
        manifest["Config"] = f"{identity}.json"
        for layer in manifest["Layers"]:
            written.addfile(made.getmember(layer), made.extractfile(layer))
        for name, content in ((manifest["Config"], text), ("manifest.json", json.dumps([manifest]).encode())):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o444
            written.addfile(entry, io.BytesIO(content))
    return identity


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


def bill(root: Path, version: str, epoch: int) -> dict[str, Any]:
    """Everything installed under `root`, in CycloneDX 1.6: Debian's packages, Python, and what is in the
    gateway's environment. Raises ValueError where there is no environment.

    https://cyclonedx.org/docs/1.6/json/
    """
    components = sorted(
        [*_debian(root), *_interpreter(root), *_python(root)], key=lambda component: component["bom-ref"]
    )
    contents = json.dumps(components, sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, contents)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": "sluice-gateway",
                "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [one["bom-ref"] for one in components]}],
    }


def _component(kind: str, name: str, version: str, purl: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl, **more}


def _python(root: Path) -> Iterator[dict[str, Any]]:
    (packages,) = (root / "opt" / "sluice" / "lib").glob("python3*/site-packages")
    for found in distributions(path=[str(packages)]):
        name, version = found.metadata["Name"], found.version
        purl = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{quote(version, safe='')}"
        licences = _licences(found.metadata)
        yield _component("library", name, version, purl, **({"licenses": licences} if licences else {}))


def _licences(metadata: Message) -> list[dict[str, Any]]:
    """Of core metadata: the expression, else the field of free text where it is a name and no text."""
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    text = metadata.get("License", "")
    return [{"license": {"name": text}}] if text and len(text) < 60 and "\n" not in text else []


def _debian(root: Path) -> Iterator[dict[str, Any]]:
    """https://www.debian.org/doc/debian-policy/ch-controlfields.html"""
    release = dict(
        line.split("=", 1) for line in (root / "etc/os-release").read_text().splitlines() if "=" in line
    )
    status = root / "var/lib/dpkg/status"
    for text in status.read_text().split("\n\n") if status.exists() else ():
        fields = Parser().parsestr(text, headersonly=True)
        if str(fields["Status"]).endswith(" installed"):
            name, version, machine = (str(fields[key]) for key in ("Package", "Version", "Architecture"))
            place = f"arch={machine}&distro=debian-{release['VERSION_ID'].strip(chr(34))}"
            yield _component(
                "library", name, version, f"pkg:deb/debian/{name}@{quote(version, safe='')}?{place}"
            )


def _interpreter(root: Path) -> Iterator[dict[str, Any]]:
    """The Python of the official image, which is no package of Debian's."""
    for header in root.glob("usr/local/include/python3*/patchlevel.h"):
        if found := re.search(r'#define PY_VERSION\s+"(.+)"', header.read_text()):
            version = found.group(1)
            yield _component("application", "python", version, f"pkg:generic/python@{version}")


def provenance(
    context: Path, commit: str, base: str, base_digest: str, digest: str, name: str, files: list[Path]
) -> dict[str, Any]:
    """How an image was made, as an unsigned statement of in-toto with SLSA's predicate. `digest`: of the
    image's manifest as a registry gets it; `files`: what was written beside it.

    https://slsa.dev/spec/v1.0/provenance
    """
    subjects = [{"name": name, "digest": _digest(digest)}]
    subjects += [{"name": file.name, "digest": {"sha256": _sum(file)}} for file in files]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"base": base, "commit": commit},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": commit}},
                    {"name": base, "digest": _digest(base_digest)},
                    *({"name": path, "digest": {"sha256": _sum(context / path)}} for path in INPUTS),
                ],
            },
            "runDetails": {"builder": {"id": "urn:sluice:make-image"}},
        },
    }


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value}


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main(what: str, *given: str) -> None:
    if what == "settle":
        archive, settled = given
        print(settle(Path(archive), Path(settled)))
        return
    if what == "bill":
        root, version, epoch = given
        made = bill(Path(root), version, int(epoch))
    else:
        context, commit, base, base_digest, digest, name, *files = given
        made = provenance(
            Path(context), commit, base, base_digest, digest, name, [Path(file) for file in files]
        )
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
