"""docker-py as programs use it. TestSDK of e2e runs it, as it does the tests of this folder: DOCKER_HOST, IMAGE and ID say
what is used, and ENGINE=docker that it is a Docker engine and not Kubernetes behind two gateways."""

import io
import os
import socket
import tarfile
import threading
import time
import unittest

import docker
from docker.types import LogConfig, Mount, ServiceMode

IMAGE, PREFIX, ENGINE = os.environ["IMAGE"], os.environ["ID"] + "-py", os.environ.get("ENGINE") == "docker"


def archive(name, content):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def unpacked(chunks, name):
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        return tar.extractfile(name).read()


class DockerPy(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env(timeout=60)
        self.addCleanup(self.client.close)

    def soon(self, what, holds):
        end = time.monotonic() + 30
        while not holds():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.1)

    def run_container(self, name, command, **kwargs):
        it = self.client.containers.run(IMAGE, command, name=f"{PREFIX}-{name}", detach=True, **kwargs)
        self.addCleanup(self.remove, it)
        return it

    def remove(self, it):
        try:
            it.remove(force=True, v=True)
        except docker.errors.NotFound:
            pass

    def refused(self, reason, call, *args, **kwargs):
        """What Kubernetes cannot do: an engine does it."""
        if ENGINE:
            call(*args, **kwargs)
            return
        with self.assertRaisesRegex(docker.errors.APIError, reason):
            call(*args, **kwargs)

    def test_system(self):
        self.assertTrue(self.client.ping())
        self.assertEqual(self.client.version()["Os"], "linux")
        self.assertGreater(self.client.info()["NCPU"], 0)
        self.assertIn(IMAGE, self.client.images.get(IMAGE).tags)
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.images.get("example.invalid/none:1")
        self.assertTrue(self.client.nodes.list())
        if not ENGINE:
            self.client.images.pull(*IMAGE.rsplit(":", 1))

    def test_run(self):
        said = self.client.containers.run(IMAGE, ["sh", "-c", "echo $WORD; sleep 0.5"], environment={"WORD": "out"}, remove=True, name=PREFIX + "-run")
        self.assertEqual(said, b"out\n")
        with self.assertRaises(docker.errors.ContainerError) as failed:
            self.client.containers.run(IMAGE, ["sh", "-c", "exit 3"], remove=True, name=PREFIX + "-fails")
        self.assertEqual(failed.exception.exit_status, 3)
        it = self.run_container("job", ["sh", "-c", "echo out; sleep 0.3; echo bad >&2; exit 4"], mem_limit="64m", nano_cpus=500000000, log_config=LogConfig(type="json-file"))
        self.assertEqual(it.wait()["StatusCode"], 4)
        it.reload()
        self.assertEqual((it.status, it.attrs["State"]["ExitCode"], it.attrs["HostConfig"]["Memory"]), ("exited", 4, 64 << 20))
        self.assertEqual(it.logs(), b"out\nbad\n")
        self.assertEqual(it.logs(stream=False, tail=1, stderr=not ENGINE), b"out\n" if ENGINE else b"bad\n")

    def test_stream_and_exec(self):
        it = self.run_container("exec", ["sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.2; done; exec sleep 600"], labels={"sdk": PREFIX})
        self.assertEqual([x.id for x in self.client.containers.list(filters={"label": "sdk=" + PREFIX, "status": "running"})], [it.id])
        lines = []
        for chunk in it.logs(stream=True, follow=True):
            lines.append(chunk)
            if b"line 3" in b"".join(lines):
                break
        self.assertEqual(b"".join(lines), b"line 1\nline 2\nline 3\n")
        code, output = it.exec_run(["sh", "-c", "echo $WORD; pwd; echo bad >&2; exit 7"], environment={"WORD": "env"}, workdir="/tmp", demux=True)
        self.assertEqual((code, output), (7, (b"env\n/tmp\n", b"bad\n")))
        code, output = it.exec_run(["sh", "-c", "test -t 1 && echo terminal"], tty=True)
        self.assertEqual((code, output), (0, b"terminal\r\n"))
        code, output = it.exec_run(["sh", "-c", "echo one; sleep 0.3; echo two"], stream=True)
        self.assertEqual(b"".join(output), b"one\ntwo\n")
        # with stdin, by a socket of one's own
        exec_id = self.client.api.exec_create(it.id, ["cat"], stdin=True)["Id"]
        conn = self.client.api.exec_start(exec_id, socket=True)
        raw = getattr(conn, "_sock", conn)
        raw.sendall(b"typed\n")
        raw.shutdown(socket.SHUT_WR)
        said = b""
        while chunk := raw.recv(4096):
            said += chunk
        conn.close()
        self.assertEqual(said, b"\x01\x00\x00\x00\x00\x00\x00\x06typed\n")
        self.soon("the exec ends", lambda: not self.client.api.exec_inspect(exec_id)["Running"])
        self.assertEqual(self.client.api.exec_inspect(exec_id)["ExitCode"], 0)
        self.assertTrue(it.top()["Processes"])
        self.assertGreater(it.stats(stream=False)["memory_stats"]["usage"], 0)
        stats = it.stats(stream=True, decode=True)
        self.assertGreater([next(stats) for _ in range(2)][1]["cpu_stats"]["cpu_usage"]["total_usage"], 0)
        stats.close()

    def test_attach(self):
        it = self.client.containers.create(IMAGE, ["sh", "-c", "read word; echo heard $word"], stdin_open=True, name=PREFIX + "-attach")
        self.addCleanup(self.remove, it)
        conn = it.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        it.start()
        raw = getattr(conn, "_sock", conn)
        raw.sendall(b"typed\n")
        said = b""
        while chunk := raw.recv(4096):
            said += chunk
        conn.close()
        self.assertEqual(said[8:], b"heard typed\n")
        self.assertEqual(it.wait()["StatusCode"], 0)
        self.assertEqual(it.logs(), b"heard typed\n")

    def test_files(self):
        it = self.run_container("files", ["sleep", "600"])
        self.assertTrue(it.put_archive("/tmp", archive("page", b"content\n")))
        chunks, stat = it.get_archive("/tmp/page")
        self.assertEqual((stat["name"], stat["size"], unpacked(chunks, "page")), ("page", 8, b"content\n"))
        with self.assertRaises(docker.errors.NotFound):
            it.get_archive("/none")
        self.refused("only an engine knows", it.diff)

    def test_lifecycle(self):
        words = []
        events = self.client.events(decode=True, filters={"container": PREFIX + "-life", "type": "container"})
        reader = threading.Thread(target=lambda: words.extend(e["Action"] for e in events), daemon=True)
        reader.start()
        it = self.run_container("life", ["sh", "-c", "trap 'exit 4' USR1 TERM; while true; do sleep 0.1; done"], mem_limit="64m")
        it.kill("SIGUSR1")
        self.assertEqual(it.wait()["StatusCode"], 4)
        it.restart(timeout=1)
        it.reload()
        self.assertEqual(it.status, "running")
        it.update(mem_limit="128m", memswap_limit="128m")
        it.stop(timeout=1)
        it.reload()
        self.assertEqual(it.status, "exited")
        self.assertIn(it.attrs["State"]["ExitCode"], (4, 137))  # killed, where it had no trap yet
        it.start()
        it.kill()
        it.wait()
        self.refused("a Pod's name is fixed", it.rename, PREFIX + "-life-2")
        it.remove()
        with self.assertRaises(docker.errors.NotFound):
            self.client.containers.get(it.id)
        self.soon("events", lambda: "destroy" in words)
        events.close()
        reader.join(10)
        self.assertEqual([w for w in words if w in ("create", "start", "die", "destroy")],
                         ["create", "start", "die", "start", "die", "start", "die", "destroy"])

    def test_networks_and_volumes(self):
        network = self.client.networks.create(PREFIX + "-net", labels={"sdk": PREFIX})
        self.addCleanup(lambda: [n.remove() for n in self.client.networks.list(filters={"label": "sdk=" + PREFIX})])
        volume = self.client.volumes.create(PREFIX + "-vol", labels={"sdk": PREFIX})
        self.addCleanup(lambda: [v.remove() for v in self.client.volumes.list(filters={"label": "sdk=" + PREFIX})])
        self.assertEqual([n.id for n in self.client.networks.list(filters={"label": "sdk=" + PREFIX})], [network.id])
        it = self.run_container("writes", ["sh", "-c", "echo kept > /data/file; exec sleep 600"], network=network.name,
                                volumes={volume.name: {"bind": "/data", "mode": "rw"}}, mounts=[Mount("/mem", None, type="tmpfs")])
        self.soon("it has written", lambda: it.exec_run(["test", "-s", "/data/file"]).exit_code == 0)
        network.reload()
        self.assertEqual([c.id for c in network.containers], [it.id])
        with self.assertRaisesRegex(docker.errors.APIError, "volume is in use"):
            volume.remove()
        with self.assertRaisesRegex(docker.errors.APIError, "active endpoints"):
            network.remove()
        it.remove(force=True)
        reads = self.client.containers.run(IMAGE, ["cat", "/data/file"], remove=True, name=PREFIX + "-reads", volumes=[volume.name + ":/data:ro"])
        self.assertEqual(reads, b"kept\n")
        self.soon("the reader is gone", lambda: not self.client.containers.list(all=True, filters={"name": PREFIX + "-reads"}))
        volume.remove()
        network.remove()
        with self.assertRaises(docker.errors.NotFound):
            self.client.volumes.get(volume.name)

    def test_services(self):
        secret = self.client.secrets.create(name=PREFIX + "-key", data=b"hunter2")
        self.addCleanup(secret.remove)
        config = self.client.configs.create(name=PREFIX + "-conf", data=b"setting=1")
        self.addCleanup(config.remove)
        service = self.client.services.create(
            IMAGE, ["sh", "-c", "cat /run/secrets/key /conf; echo; exec sleep 600"], name=PREFIX + "-svc", labels={"sdk": PREFIX},
            mode=ServiceMode("replicated", replicas=1),
            secrets=[docker.types.SecretReference(secret.id, PREFIX + "-key", filename="key")],
            configs=[docker.types.ConfigReference(config.id, PREFIX + "-conf", filename="/conf")])
        removed = []
        self.addCleanup(lambda: removed or service.remove())

        def running():
            return [t for t in service.tasks(filters={"desired-state": "running"}) if t["Status"]["State"] == "running"]
        self.soon("a task runs", lambda: len(running()) == 1)
        self.assertEqual([s.id for s in self.client.services.list(filters={"label": "sdk=" + PREFIX})], [service.id])
        self.soon("its log", lambda: b"hunter2setting=1\n" in b"".join(service.logs(stdout=True)))
        self.assertTrue(service.scale(2))
        self.soon("two tasks run", lambda: len(running()) == 2)
        service.reload()
        service.update(env=["COLOUR=blue"])
        self.soon("both are new", lambda: [t["Spec"]["ContainerSpec"].get("Env") for t in running()] == [["COLOUR=blue"]] * 2)
        service.remove()
        removed.append(True)
        with self.assertRaises(docker.errors.NotFound):
            self.client.services.get(service.id)


if __name__ == "__main__":
    unittest.main(verbosity=2)
