"""Collections, uploads and jobs over a real connection: nothing half done, nothing outside its folder, nothing in silence."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from api.errors import BadRequest, BodyTooLarge
from api.jobs import Jobs
from api.keys import LOCAL
from api.uploads import Receiving, boundary_of, checked_name
from rag.errors import InputError, RagError, UnknownField
from rag.types import IngestReport
from tests.api_fakes import Live, events, live, problem, wait_until

TEXT = b"The Omega valve is made in Lyon. It opens at nine bar.\n"
PATH = "/v1/collections/default/documents"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as running:
        yield running


def upload(client: httpx.Client, *files: tuple[str, bytes], path: str = PATH) -> httpx.Response:
    return client.post(path, files=[("files", (name, content)) for name, content in files])


def finished(client: httpx.Client, accepted: httpx.Response) -> dict[str, object]:
    """The job when it has ended."""
    assert accepted.status_code == 202, accepted.text
    path = accepted.headers["location"]
    assert path == f"/v1/jobs/{accepted.json()['id']}"
    wait_until(lambda: client.get(path).json()["ended"] is not None)
    found: dict[str, object] = client.get(path).json()
    return found


def uploads_of(served: Live) -> list[str]:
    """Every file that uploads left behind."""
    root = served.home / "uploads"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) if root.exists() else []


def test_collections_are_made_listed_shown_and_deleted(served: Live) -> None:
    client = served.client()
    made = client.post("/v1/collections", json={"name": "handbook"})
    assert (made.status_code, made.headers["location"]) == (201, "/v1/collections/handbook")
    assert made.json()["documents"] == 0
    assert [row["name"] for row in client.get("/v1/collections").json()["collections"]] == ["default", "handbook"]
    assert client.get("/v1/collections/handbook").json() == made.json()
    problem(client.post("/v1/collections", json={"name": "handbook"}), 409, "collection_exists")
    for wrong in ("../x", ".hidden", "a/b", "", "a" * 65):
        problem(client.post("/v1/collections", json={"name": wrong}), 422, "input_invalid")
    assert client.delete("/v1/collections/handbook").json() == {"deleted": "handbook", "collection": "handbook"}
    problem(client.get("/v1/collections/handbook"), 404, "collection_missing")
    problem(client.delete("/v1/collections/handbook"), 404, "collection_missing")
    problem(served.ask(collection="handbook"), 404, "collection_missing")


def test_a_collection_made_anew_under_an_old_name_holds_nothing_of_the_old(served: Live) -> None:
    client = served.client()
    assert served.ask().json()["verdict"] == "answered"
    client.delete("/v1/collections/default")
    client.post("/v1/collections", json={"name": "default"})
    assert served.ask().json()["reason"].startswith("no_index_content")


def test_uploaded_files_are_read_in_and_answer_questions(served: Live) -> None:
    client = served.client()
    job = finished(client, upload(client, ("valve.txt", TEXT), ("straße.md", b"# Road\n\nThe road is blue.\n")))
    assert (job["state"], job["files"], job["error"]) == ("done", ["valve.txt", "straße.md"], None)
    report = job["report"]
    assert isinstance(report, dict)
    assert (report["added"], report["failures"]) == (2, [])
    assert list(report) == list(IngestReport().to_dict())
    found = client.post("/v1/search", json={"query": "Omega valve Lyon"}).json()["hits"][0]
    assert Path(found["source"]).name == "valve.txt"
    assert client.get("/v1/collections/default").json()["documents"] == 4
    assert uploads_of(served) == []


def test_a_file_of_the_same_name_replaces_the_old(served: Live) -> None:
    client = served.client()
    finished(client, upload(client, ("valve.txt", TEXT)))
    report = finished(client, upload(client, ("valve.txt", b"The Omega valve is made in Turin.\n")))["report"]
    assert isinstance(report, dict)
    assert (report["added"], report["changed"]) == (0, 1)
    hits = client.post("/v1/search", json={"query": "Omega valve"}).json()["hits"]
    assert "Turin" in hits[0]["text"]
    assert not any("Lyon" in hit["text"] for hit in hits)


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_is_in(served: Live) -> None:
    client = served.client()
    job = finished(client, upload(client, ("good.txt", TEXT), ("broken.pdf", b"%PDF-1.7 nothing")))
    report = job["report"]
    assert isinstance(report, dict)
    assert (job["state"], report["added"], len(report["failures"])) == ("done", 1, 1)
    assert "broken.pdf" in report["failures"][0]["source"]
    nothing = finished(client, upload(client, ("broken.pdf", b"%PDF-1.7 nothing else")))
    assert nothing["state"] == "failed"


def test_documents_are_listed_in_pages_shown_and_deleted(served: Live) -> None:
    client = served.client()
    whole = client.get(PATH).json()
    assert (sorted(row["id"] for row in whole["documents"]), whole["next"]) == (["otter", "pump"], None)
    assert list(whole["documents"][0]) == ["id", "source", "title", "chunks", "tokens", "added"]
    first = client.get(PATH, params={"limit": 1}).json()
    second = client.get(PATH, params={"limit": 1, "after": first["next"]}).json()
    assert (first["documents"] + second["documents"], second["next"]) == (whole["documents"], None)
    shown = client.get(f"{PATH}/pump").json()
    assert shown["metadata"] == {"year": 2021}
    assert "uri" not in shown
    citation = served.ask().json()["citations"][0]
    assert shown["text"][citation["start"]:citation["end"]] == citation["quote"]
    assert client.delete(f"{PATH}/pump").json() == {"deleted": 1, "collection": "default"}
    problem(client.get(f"{PATH}/pump"), 404, "document_missing")
    problem(client.delete(f"{PATH}/pump"), 404, "document_missing")
    assert client.get(PATH).json()["documents"] == [row for row in whole["documents"] if row["id"] == "otter"]
    assert served.ask().json()["citations"] == []


def test_progress_is_told_as_events_until_the_end(served: Live) -> None:
    client = served.client()
    served.ingestion.gate.clear()
    accepted = upload(client, ("valve.txt", TEXT))
    assert served.ingestion.began.acquire(timeout=60)
    with client.stream("GET", f"/v1/jobs/{accepted.json()['id']}/events") as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if '"stage":"encode"' in text:
                served.ingestion.gate.set()
    told = events(text)
    assert [name for name, _ in told][-1] == "done"
    assert {name for name, _ in told[:-1]} == {"progress"}
    assert told[0][1]["state"] == "running"
    assert (told[-1][1]["state"], told[-1][1]["report"]["added"]) == ("done", 1)
    again = client.get(f"/v1/jobs/{accepted.json()['id']}/events")
    assert events(again.text) == [("done", told[-1][1])]


def test_jobs_are_listed_to_those_whose_collections_they_are_of(served: Live) -> None:
    client = served.client(served.key(scopes=("admin",)))
    client.post("/v1/collections", json={"name": "listed"})
    done = finished(client, upload(client, ("a.txt", TEXT)))
    served.ingestion.gate.clear()
    running = upload(client, ("b.txt", TEXT), path="/v1/collections/listed/documents").json()
    assert served.ingestion.began.acquire(timeout=60)

    def listed(key: str, **query: str | int) -> set[str]:
        return {row["id"] for row in served.client(key).get("/v1/jobs", params=query).json()["jobs"]}

    every, other, stranger = served.key(), served.key(collections=("listed",)), served.key(tenant="other")
    assert {done["id"], running["id"]} <= listed(every)
    assert listed(every, under_way=True) == listed(every, collection="listed") == listed(other) == {running["id"]}
    assert len(listed(every, limit=1)) == 1
    assert listed(stranger) == listed(other, collection="default") == set()
    [row] = served.client(other).get("/v1/jobs").json()["jobs"]
    assert row["state"] == "running"
    problem(served.client(every).get("/v1/jobs", params={"limit": 0}), 422, "input_invalid")
    served.ingestion.gate.set()
    wait_until(lambda: listed(every, under_way=True) == set())


def test_jobs_are_cancelled_while_they_run_and_while_they_wait(served: Live) -> None:
    client = served.client()
    served.ingestion.gate.clear()
    running, waiting = (upload(client, (f"{name}.txt", TEXT)).json() for name in ("a", "b"))
    assert served.ingestion.began.acquire(timeout=60)
    assert client.delete(f"/v1/jobs/{waiting['id']}").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{running['id']}").status_code == 202
    wait_until(lambda: client.get(f"/v1/jobs/{running['id']}").json()["state"] == "cancelled")
    assert len(served.ingestion.orders) == 1
    wait_until(lambda: uploads_of(served) == [])
    assert client.delete(f"/v1/jobs/{running['id']}").json()["state"] == "cancelled"
    problem(client.get("/v1/jobs/nothing"), 404, "job_missing")


def test_no_request_fails_while_documents_come_and_go(served: Live) -> None:
    """Each upload publishes a new snapshot; every question meanwhile sees one whole state or the next."""
    def asked(_: int) -> tuple[int, str]:
        response = served.ask()
        return response.status_code, response.json().get("verdict", "")

    client = served.client()
    with ThreadPoolExecutor(3) as pool:
        answers = pool.map(asked, range(24))
        for at in range(4):
            finished(client, upload(client, (f"{at}.txt", TEXT.replace(b"Omega", f"Omega{at}".encode()))))
        assert set(answers) == {(200, "answered")}
    assert client.get("/v1/collections/default").json()["documents"] == 6


def test_what_a_stopped_server_left_is_read_in_by_the_next(tmp_path: Path) -> None:
    with live(tmp_path) as first:
        first.ingestion.gate.clear()
        ids = [upload(first.client(), (f"{name}.txt", TEXT.replace(b"Omega", name.encode()))).json()["id"] for name in ("a", "b")]
        assert first.ingestion.began.acquire(timeout=60)
        first.stop()
    for orphan in ("uploads/.staging/orphan/x.txt", "uploads/default/orphan.txt"):
        (tmp_path / orphan).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / orphan).touch()
    with live(tmp_path, collection=False) as second:
        client = second.client()
        wait_until(lambda: all(client.get(f"/v1/jobs/{job}").json()["state"] == "done" for job in ids))
        assert client.get("/v1/collections/default").json()["documents"] == 4
        assert uploads_of(second) == []


def test_uploads_that_wait_are_bounded(tmp_path: Path) -> None:
    with live(tmp_path, jobs_waiting=0) as served:
        client = served.client()
        served.ingestion.gate.clear()
        upload(client, ("a.txt", TEXT))
        assert served.ingestion.began.acquire(timeout=60)
        assert upload(client, ("b.txt", TEXT)).status_code == 202
        refused = upload(client, ("c.txt", TEXT))
        problem(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1


NAMES = ["../x.txt", "..\\x.txt", "/etc/passwd", "a/b.txt", "..", ".", ".bashrc", "~root", "~", "", " ", "a\x00b",
         "x\n.txt", "x\u202e.txt",
         "a" * 201, "x.", "x ", "\u200b"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_could_be_more_than_a_name(name: str) -> None:
    with pytest.raises(InputError) as refused:
        checked_name(name.encode())
    assert refused.value.code == "file_name_invalid"


def test_names_that_are_fine() -> None:
    for name in ("guide.pdf", "Größe und Maße.docx", "日本語.txt", "a b (1).md", "json.py", "-", "*.txt", "x..y", "[1].csv"):
        assert checked_name(name.encode()) == name
    assert checked_name("Cafe\u0301.txt".encode()) == "Caf\u00e9.txt"
    with pytest.raises(InputError):
        checked_name(b"\xff\xfe.txt")


def body(*parts: tuple[str, bytes], boundary: str = "XX", field: str = "files") -> bytes:
    made = b"".join(b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n' % (
        boundary.encode(), field.encode(), name.encode(), content) for name, content in parts)
    return made + b"--%s--\r\n" % boundary.encode()


def test_an_upload_in_pieces_of_any_size_is_the_upload(tmp_path: Path) -> None:
    rng = random.Random(7)
    files = [("a.bin", rng.randbytes(5000)), ("b.txt", b"\r\n--XX\r-"), ("c", b"")]
    whole = body(*files)
    for round_ in range(20):
        receiving = Receiving(tmp_path / str(round_), b"XX", max_files=3, max_file_bytes=5000)
        at = 0
        while at < len(whole):
            size = rng.choice((1, 2, 7, 100, 4000))
            receiving.feed(whole[at:at + size])
            at += size
        assert receiving.finish() == ["a.bin", "b.txt", "c"]
        assert [(receiving.folder / name).read_bytes() for name, _ in files] == [content for _, content in files]
        receiving.abandon()
        assert not receiving.folder.exists()


@pytest.mark.parametrize(("sent", "error", "code"), [
    (body(("a", b"x" * 11)), BodyTooLarge, "file_too_large"),
    (body(("a", b""), ("b", b""), ("c", b"")), InputError, "too_many_files"),
    (body(("a", b""), ("a", b"")), InputError, "file_name_repeated"),
    (body(("../a", b"")), InputError, "file_name_invalid"),
    (body(("a", b""), field="file"), UnknownField, "unknown_field"),
    (b'--XX\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--XX--\r\n', InputError, "file_name_invalid"),
    (b"--XX\r\n" + b"X-A: " + b"a" * 9000 + b"\r\n\r\n\r\n--XX--\r\n", BadRequest, "multipart_invalid"),
    (b"hello", BadRequest, "multipart_invalid"), (body(("a", b"x"))[:-12], BadRequest, "multipart_invalid"),
    (b"--XX--\r\n", RagError, None), (b"", BadRequest, "multipart_invalid")])
def test_uploads_that_cannot_be(tmp_path: Path, sent: bytes, error: type[RagError], code: str | None) -> None:
    receiving = Receiving(tmp_path / "job", b"XX", max_files=2, max_file_bytes=10)

    def take_in() -> None:
        receiving.feed(sent)
        receiving.finish()

    with pytest.raises(error) as refused:
        take_in()
    assert code is None or refused.value.code == code
    receiving.abandon()
    assert list(tmp_path.iterdir()) == []


def test_no_bytes_make_anything_but_files_or_a_refusal(tmp_path: Path) -> None:
    """A thousand bodies with random damage: each is taken in or refused by name, and nothing lands outside its folder."""
    rng = random.Random(11)
    whole = bytearray(body(("a.txt", b"hello"), ("b.txt", b"world")))
    codes: set[str] = set()
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(damaged))
            damaged[place:place + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        receiving = Receiving(tmp_path / "job", b"XX", max_files=3, max_file_bytes=100)
        try:
            receiving.feed(bytes(damaged))
            names = receiving.finish()
        except RagError as error:
            codes.add(error.code)
        else:
            codes.add("taken in")
            assert all(checked_name(name.encode()) == name for name in names)
        receiving.abandon()
        assert list(tmp_path.iterdir()) == []
    assert {"taken in", "multipart_invalid"} <= codes
    assert codes <= {"taken in", "multipart_invalid", "file_name_invalid", "unknown_field", "file_name_repeated", "too_many_files",
                     "input_invalid"}


@pytest.mark.parametrize(("declared", "code"), [
    ("application/json", "media_type_unsupported"), ("", "media_type_unsupported"), ("multipart/form-data", "multipart_invalid"),
    ("multipart/form-data; boundary=", "multipart_invalid"), (f"multipart/form-data; boundary={'x' * 300}", "multipart_invalid")])
def test_what_an_upload_is_declared_as(declared: str, code: str) -> None:
    with pytest.raises(RagError) as refused:
        boundary_of(declared)
    assert refused.value.code == code


def test_bad_uploads_over_the_wire_leave_nothing(tmp_path: Path) -> None:
    with live(tmp_path, upload_mb=1, upload_files=2, settings={"max_file_mb": 1}) as served:
        client = served.client()
        problem(upload(client, ("../../evil.txt", TEXT)), 422, "file_name_invalid")
        problem(upload(client, ("a", b""), ("b", b""), ("c", b"")), 422, "too_many_files")
        problem(upload(client, ("a.txt", b"x" * 1_100_000)), 413, "body_too_large")
        problem(client.post(PATH, json={"files": []}), 415, "media_type_unsupported")
        problem(upload(client, ("a.txt", TEXT), path="/v1/collections/nope/documents"), 404, "collection_missing")
        assert uploads_of(served) == []
        assert served.ingestion.orders == []
        assert not (tmp_path.parent / "evil.txt").exists()


def test_a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing(served: Live) -> None:
    address = urlsplit(served.url)
    whole = body(("a.txt", b"x" * 200_000))
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=XX\r\n"
                           f"Content-Length: {len(whole)}\r\n\r\n".encode() + whole[:100_000])
        wait_until(lambda: uploads_of(served) != [])
    wait_until(lambda: uploads_of(served) == [])
    assert served.ingestion.orders == []
    assert upload(served.client(), ("a.txt", TEXT)).status_code == 202


def test_a_job_that_meets_a_defect_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    def broken(*_: object) -> IngestReport:
        raise ZeroDivisionError

    with live(tmp_path, runner=broken) as served:
        client = served.client()
        for _ in range(2):
            job = finished(client, upload(client, ("a.txt", TEXT)))
            assert job["state"] == "failed"
            assert isinstance(job["error"], dict)
            assert job["error"]["code"] == "internal_error"


def test_ended_jobs_are_forgotten_in_the_end(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.jobs._KEPT", 2)
    client = served.client()
    ids = [str(finished(client, upload(client, (f"{at}.txt", TEXT)))["id"]) for at in range(3)]
    jobs: Jobs = served.service.jobs
    kept = [job for job in ids if client.get(f"/v1/jobs/{job}").status_code == 200]
    assert len(kept) == 2
    assert jobs.get(LOCAL, kept[0]).state == "done"
