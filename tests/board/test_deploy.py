"""Deploys to a real arm64 system over real ssh: from nothing to a release, to the next one, and back."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from conftest import NAME, Bundle, Emb, answers_of, current_digest
from machine import HOST, Machine


@pytest.fixture
def first(emb: Emb, bundles: tuple[Bundle, Bundle], installed: None) -> Bundle:
    """The first bundle is current."""
    emb.run("deploy", str(bundles[0].path), "--host", HOST)
    return bundles[0]


def test_a_second_model_replaces_the_first_and_a_rollback_gives_the_old_answers(
    emb: Emb, board: Machine, bundles: tuple[Bundle, Bundle], first: Bundle
):
    second = bundles[1]
    assert current_digest(board) == first.digest
    assert answers_of(board, first) == first.answers

    done = emb.run("deploy", str(second.path), "--host", HOST)
    assert done.stdout == (
        f"{HOST}: {NAME} {second.digest[:12]} is current, instead of {first.digest[:12]}; its self-test passed\n"
    )
    assert answers_of(board, second) == second.answers

    answer = emb.json("deploy", NAME, "--rollback", "--host", HOST)
    assert answer == {"hosts": [{"host": HOST, "name": NAME, "digest": first.digest, "replaced": second.digest}]}
    assert answers_of(board, first) == first.answers


def test_only_what_is_new_goes_over_the_wire(emb: Emb, bundles: tuple[Bundle, Bundle], first: Bundle, tmp_path: Path):
    changed = bundles[1].variant(tmp_path / "changed", files={"note.txt": b"new"})
    done = emb.run("deploy", str(changed.path), "--host", HOST)
    # The model, its golden outputs and the note; contract and README where the models' scales differ.
    copied = next(line for line in done.stderr.splitlines() if "copying" in line)
    assert int(copied.split()[2]) <= 5
    assert "environment" not in done.stderr


def test_a_build_is_bundled_on_the_way(emb: Emb, board: Machine, first: Bundle):
    target = str(Path(__file__).parent / "board.toml")
    answer = emb.json("deploy", f"2/{NAME}", "--target", target, "--vendor", "--host", HOST)
    assert answer["hosts"][0]["name"] == NAME
    assert answer["hosts"][0]["board"]["architecture"] == "aarch64"
    assert current_digest(board) == answer["hosts"][0]["digest"]


def releases_on_the_board(emb: Emb) -> list[dict[str, object]]:
    """Those of the model of these tests; others may have left some, too."""
    listed = emb.json("deploy", "--list", "--host", HOST)["hosts"][0]["releases"]
    return [release for release in listed if release["name"] == NAME]


def test_list_and_prune(emb: Emb, board: Machine, bundles: tuple[Bundle, Bundle], first: Bundle, tmp_path: Path):
    digests = []
    for number in range(3):
        variant = first.variant(tmp_path / str(number), files={"note.txt": str(number).encode()})
        emb.run("deploy", str(variant.path), "--host", HOST)
        digests.append(variant.digest)
    listed = releases_on_the_board(emb)
    assert [release["digest"] for release in listed][-3:] == digests
    assert [release["digest"] for release in listed if release["current"]] == digests[-1:]

    emb.run("deploy", "--prune", "--keep", "1", "--host", HOST)
    kept = releases_on_the_board(emb)
    assert [release["digest"] for release in kept] == digests[-2:]  # the current one, and what a rollback needs
    assert answers_of(board, first) == first.answers
    emb.run("deploy", NAME, "--rollback", "--host", HOST)
    done = emb.run("deploy", NAME, "--rollback", "--host", HOST, expect=2)
    assert f"there is no release of {NAME} to go back to" in done.stderr


def test_the_service_answers_with_the_current_release(emb: Emb, board: Machine, bundles: tuple[Bundle, Bundle]):
    connect = f"""python3 -c '
import os, socket, sys
images = sys.stdin.buffer.read()
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/run/user/%d/emb-{NAME}.sock" % os.getuid())
    connection.sendall(images)
    connection.shutdown(socket.SHUT_WR)
    while data := connection.recv(65536):
        sys.stdout.buffer.write(data)
'"""
    for bundle in (*bundles, bundles[0]):
        emb.run("deploy", str(bundle.path), "--service", "--host", HOST)
        done = board.ssh(connect, stdin=bundle.images)
        assert done.returncode == 0, done.stderr
        assert done.stdout == bundle.answers
    assert board.check(f"systemctl --user is-enabled emb-{NAME}.socket") == "enabled\n"


def test_several_hosts_the_bad_ones_stop_nobody(emb: Emb, board: Machine, first: Bundle, tmp_path: Path):
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{HOST}  # the one that is there\nnobody.invalid\n")
    answer = emb.json("deploy", str(first.path), "--hosts", str(hosts), expect=1)
    good, bad = answer["hosts"]
    assert good["host"] == HOST
    assert good["digest"] == first.digest
    assert bad["host"] == "nobody.invalid"
    assert bad["error"]["what"] == "cannot reach nobody.invalid by ssh"


def test_two_deploys_at_once_follow_each_other(emb: Emb, board: Machine, bundles: tuple[Bundle, Bundle], first: Bundle):
    processes = [emb.popen("deploy", str(bundle.path), "--host", HOST) for bundle in bundles]
    for process in processes:
        with process:
            out, err = process.communicate(timeout=900)
            assert process.returncode == 0, out + err
    current = next(bundle for bundle in bundles if bundle.digest == current_digest(board))
    assert answers_of(board, current) == current.answers


def test_nothing_on_the_board_is_writable_for_everybody(board: Machine, first: Bundle):
    assert board.check("find . -perm /022 ! -type l") == ""
    assert stat.S_IMODE(int(board.check("stat -c %a emb").strip(), 8)) == 0o755


def test_an_unknown_host_key_stops_the_deploy(emb: Emb, board: Machine, first: Bundle, tmp_path: Path):
    before = current_digest(board)
    config = tmp_path / "ssh_config"
    (tmp_path / "known_hosts").write_text("")
    text = board.ssh_config.read_text().replace(str(board.folder / "known_hosts"), str(tmp_path / "known_hosts"))
    # What OpenSSH does if the user has set nothing.
    config.write_text(text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask"))
    done = emb.run("deploy", str(first.path), "--host", HOST, expect=2, EMB_SSH_CONFIG=str(config))
    assert f"{HOST} is not trusted: its host key is not known" in done.stderr
    assert (tmp_path / "known_hosts").read_text() == ""
    assert current_digest(board) == before


@pytest.mark.parametrize(
    "host",
    [
        "$(touch owned)",
        "`touch owned`",
        "a;touch owned",
        "-oProxyCommand=touch owned",
        "a b",
        "a|b",
        "a\nb",
        "a&b",
        "'",
        "",
    ],
)
def test_host_names_with_shell_characters_are_refused(emb: Emb, bundles: tuple[Bundle, Bundle], host: str):
    done = emb.run("deploy", str(bundles[0].path), f"--host={host}", expect=2)
    assert "is no host" in done.stderr
    assert not (emb.home / "owned").exists()


def test_the_password_of_a_package_index_is_not_shown(emb: Emb, board: Machine, first: Bundle, tmp_path: Path):
    board.check(
        "mkdir -p .config/pip && cat > .config/pip/pip.conf",
        stdin=b"[global]\nindex-url = http://user:geheim@127.0.0.1:9/simple\nretries = 0\n",
    )
    try:
        manifest = first.manifest
        without = first.variant(
            tmp_path / "without",
            files={"requirements.txt": b"# other\n" + (first.path / "requirements.txt").read_bytes()},
        )
        for name in [name for name in manifest["files"] if name.startswith("wheels/")]:
            (without.path / name).unlink()
        document = without.manifest
        document["files"] = {name: entry for name, entry in document["files"].items() if not name.startswith("wheels/")}
        (without.path / "bundle.json").write_text(json.dumps(document))
        (without.path / "wheels").rmdir()
        done = emb.run("deploy", str(without.path), "--host", HOST, expect=1)
        assert "the runtime cannot be installed on the board" in done.stderr
        assert "send the wheels too" in done.stderr
        assert "geheim" not in done.stdout + done.stderr
        assert board.check("grep -r geheim emb || true") == ""
    finally:
        board.check("rm .config/pip/pip.conf")


@pytest.mark.parametrize("name", ["lenet-int8.tflite", "contract.json", "golden/tflite-runtime.reference.npy"])
def test_a_tampered_bundle_is_not_deployed(emb: Emb, board: Machine, first: Bundle, tmp_path: Path, name: str):
    before = current_digest(board)
    changed = first.variant(tmp_path / "changed")
    content = bytearray((changed.path / name).read_bytes())
    content[-1] ^= 1
    (changed.path / name).write_bytes(content)
    done = emb.run("deploy", str(changed.path), "--host", HOST, expect=2)
    assert f"{name} is not what bundle.json lists: its sha256 differs" in done.stderr
    assert current_digest(board) == before


@pytest.mark.parametrize("name", ["lenet-int8.tflite", "golden/tflite-runtime.reference.npy"])
def test_a_bundle_whose_outputs_differ_is_not_made_current(
    emb: Emb, board: Machine, first: Bundle, tmp_path: Path, name: str
):
    """Tampered and listed anew: only the self-test on the board can tell."""
    before = current_digest(board)
    content = bytearray((first.path / name).read_bytes())
    # Somewhere in the weights, or the last output.
    for index in range(4000, 6000) if name.endswith(".tflite") else [len(content) - 1]:
        content[index] ^= 0x55
    changed = first.variant(tmp_path / "changed", files={name: bytes(content)})
    done = emb.run("deploy", str(changed.path), "--host", HOST, expect=1)
    assert "the self-test failed on the board; what was current still is" in done.stderr
    assert current_digest(board) == before
    assert answers_of(board, first) == first.answers


@pytest.mark.parametrize("name", ["lenet-int8.tflite", "contract.json", "golden/tflite-runtime.reference.npy"])
def test_a_release_that_was_tampered_with_on_the_board(
    emb: Emb, board: Machine, bundles: tuple[Bundle, Bundle], first: Bundle, name: str
):
    """A rollback to it is refused; a deploy of it mends it."""
    emb.run("deploy", str(bundles[1].path), "--host", HOST)
    path = f"emb/{NAME}/releases/{first.digest}/bundle/{name}"
    # A new file: the old one may be linked from other releases.
    board.check(f"cp {path} x && printf '\\377' | dd of=x bs=1 seek=60 conv=notrunc status=none && mv x {path}")
    done = emb.run("deploy", NAME, "--rollback", "--host", HOST, expect=1)
    assert f"{name} is not what was bundled" in done.stderr
    assert current_digest(board) == bundles[1].digest
    emb.run("deploy", str(first.path), "--host", HOST)
    assert answers_of(board, first) == first.answers


def test_a_shared_file_that_was_tampered_with_is_sent_anew(
    emb: Emb, board: Machine, bundles: tuple[Bundle, Bundle], first: Bundle, tmp_path: Path
):
    path = f"emb/{NAME}/releases/{first.digest}/bundle/README.md"
    board.check(f"cp {path} x && printf '#' >> x && mv x {path}")
    variant = first.variant(tmp_path / "variant", files={"note.txt": b"shared"})
    emb.run("deploy", str(variant.path), "--host", HOST)
    assert answers_of(board, first) == first.answers


def test_it_is_there_after_a_reboot(emb: Emb, board: Machine, first: Bundle):
    boot = board.boot_id()
    board.monitor("system_reset")
    board.wait(other_than=boot)
    assert answers_of(board, first) == first.answers


def test_ssh_alone_is_needed(emb: Emb, first: Bundle):
    done = emb.run("deploy", "--list", "--host", HOST, expect=2, PATH="/nowhere")
    assert "there is no ssh on this machine" in done.stderr
