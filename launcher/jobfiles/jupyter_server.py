"""Configuration of the Jupyter server inside a job: ``jupyter-lab --config=<session
folder>/server_config.py``.

The portal puts this file into the session folder, unchanged, beside ``settings.json`` and ``secret``. It
runs inside the user's own Jupyter, whatever its age: notebook 5 and 6, jupyter_server 1 and 2, Python 3.5
and later. So it keeps to the syntax and the names that all of them have, and looks at what is there. It is
never imported by the portal.

Passed with --config it takes the place of a user's jupyter_server_config.py (jupyter_notebook_config.py),
and what it sets wins over the user's jupyter_config.py and jupyter_lab_config.py, which are still read.
"""
# The syntax of Python 3.5 is wanted here, without pathlib and f-strings:
# ruff: noqa: PTH100, PTH104, PTH109, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208, UP017, UP031
# Written without annotations for old Pythons, against libraries that this checkout does not have:
# mypy: ignore-errors

import hmac
import json
import os
import pwd
import signal
import socket
import sys
import tempfile
import traceback

EXIT_TOO_OLD = 76
EXIT_CONFIG_FAILED = 78
LOOK_HEADER = "X-Footbridge-Look"  # the portal asks whether anybody works here
LOOKS = []  # when it last did
SAMPLE_SECONDS = 5
COMPUTING_SHARE = 0.05  # of one core between two samples: an idle kernel takes a twentieth of that
LONGEST_SOCKET_PATH = 100  # Linux takes 107 bytes; "-ipc-5" and the like come at the end


def give_up(status, word, sentence):
    """Say why, for people and for the portal, and end the job. A server without this configuration must not
    run."""
    sys.stdout.write("%s\nfootbridge: failed=%s subject=\n" % (sentence, word))
    sys.stdout.flush()
    sys.exit(status)


def read(name):
    """The text of a file in the session folder."""
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read().strip()


def running_app():
    """The application that reads this file: ServerApp, or NotebookApp of the classic notebook (or None)."""
    from traitlets.config.application import Application

    return Application.instance() if Application.initialized() else None


def is_classic(app):
    """Whether ``app`` is the classic notebook server, up to release 6, or something built on it."""
    return any(
        kind.__name__ == "NotebookApp" and kind.__module__ == "notebook.notebookapp" for kind in type(app).__mro__
    )


def describe(app):
    """Name and version of the server, and how it takes our secret."""
    if is_classic(app):
        import notebook

        version, name = notebook.__version__, "notebook"
        if int(version.split(".")[0]) < 5:
            give_up(EXIT_TOO_OLD, "jupyter_too_old", "notebook %s is too old; release 5 is needed." % version)
        return "%s %s" % (name, version), "token"
    import jupyter_server

    version = jupyter_server.__version__
    return "jupyter_server %s" % version, "identity" if int(version.split(".")[0]) >= 2 else "token"


def set_common(section):
    """Settings that NotebookApp and ServerApp have in common."""
    section.ip = SETTINGS["listen_address"]
    section.port = 0  # see use_free_port
    section.port_retries = 0
    section.base_url = SETTINGS["base_url"]
    section.open_browser = False
    section.quit_button = False  # the portal's Stop ends the job, and says what it does
    section.allow_remote_access = True  # the browser asks for the portal's name, not for this computer's
    section.trust_xheaders = True  # the portal says who asks, and whether it was by https
    section.shutdown_no_activity_timeout = 0  # see watch_idleness
    # What a user's own settings could say that would lock the portal out, or let others in:
    section.certfile = section.keyfile = section.client_ca = ""
    section.disable_check_xsrf = False
    section.allow_origin = section.allow_origin_pat = ""
    section.allow_credentials = False


def count_only_work(app):
    """Have Jupyter's ``last_activity`` tell of people's work, and not of pages that are merely open.

    Each JupyterLab tab asks for lists and writes its layout every ten seconds, and every answer counts as activity.
    Here only what changes files, kernels, notebooks' sessions and terminals does: below ``api/``, and no GET.
    Looks of the portal are remembered, see ``watch_idleness``.
    """
    if is_classic(app):
        from notebook.base.handlers import APIHandler
    else:
        from jupyter_server.base.handlers import APIHandler
    update = getattr(APIHandler, "update_api_activity", None)
    if update is None:
        return  # a server of that age does not count requests

    def update_if_work(self):
        request = self.request
        is_known = any(getattr(self, name, None) for name in ("_jupyter_current_user", "_user_cache", "_current_user"))
        if is_known and request.headers.get(LOOK_HEADER):
            LOOKS[:] = [now()]
        elif request.method not in ("GET", "HEAD", "OPTIONS") and request.path.startswith(app.base_url + "api/"):
            update(self)

    APIHandler.update_api_activity = update_if_work


def now():
    """Seconds, as Jupyter's own times have them."""
    import time

    return time.time()


def unused_seconds(app):
    """How long nobody has used the server; 0 while a kernel computes. Raises whatever a strange server makes of it."""
    settings, kernels = app.web_app.settings, app.kernel_manager
    moments = [app.web_app.last_activity().timestamp()]
    for kernel_id in kernels.list_kernel_ids():
        kernel = kernels.get_kernel(kernel_id)
        if kernel.execution_state == "busy":
            return 0
        moments.append(kernel.last_activity.timestamp())
    for terminal in list(getattr(settings.get("terminal_manager"), "terminals", {}).values()):
        moments.append(terminal.last_activity.timestamp())
    return now() - max(moments)


def watch_idleness(app):
    """End a server that nobody uses and that the portal does not look after, and leave a mark in the log.

    The portal looks more often than this and stops the session itself, after a warning. Called when the loop runs.
    """
    from tornado.ioloop import PeriodicCallback

    limit = SETTINGS["idle_stop_seconds"]
    if not limit:
        return

    def look():
        try:
            unused = min([unused_seconds(app)] + [now() - at for at in LOOKS])
        except Exception:
            return  # what cannot be known is no reason to stop
        if unused > limit:
            watch.stop()
            mark("ended=idle")
            app.stop()

    watch = PeriodicCallback(look, 1000 * max(1, min(60, limit // 4)))
    watch.start()


def programs_of_job(known):
    """Processor time in ticks of every process that this job's server started, by (pid, start), but not of the server.

    What a terminal or a kernel left in the background belongs to it, too: the job's own runtime folder stands in its
    environment. ``known`` remembers for which processes that was looked up.
    """
    sign = b"JUPYTER_RUNTIME_DIR=" + os.fsencode(os.environ.get("JUPYTER_RUNTIME_DIR", "none"))
    found, asked = {}, {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if os.stat("/proc/" + name).st_uid != os.getuid():
                continue
            with open("/proc/%s/stat" % name, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            process = (name, fields[19])
            ours = known.get(process)
            if ours is None:
                with open("/proc/%s/environ" % name, "rb") as file:
                    ours = sign in file.read().split(b"\0")
        except (OSError, IndexError):
            continue  # it has just ended, or is none of ours
        asked[process] = ours
        if ours:
            found[process] = int(fields[11]) + int(fields[12])
    known.clear()
    known.update(asked)
    return found


def watch_programs(app):
    """Count computing as work: of a program in a terminal, and of what a kernel left in the background.

    Such a program may print nothing for days, and Jupyter itself does not see it. Idle kernels stay far below
    COMPUTING_SHARE. Called when the loop runs.
    """
    import datetime

    from tornado.ioloop import PeriodicCallback

    known, last = {}, {}
    if not SETTINGS["idle_stop_seconds"]:
        return

    def look():
        try:
            used, at = programs_of_job(known), now()
        except Exception:
            return  # a computer that shows no processes
        if last:
            before = last["used"]
            ticks = sum(max(0, used[process] - before.get(process, 0)) for process in used)
            seconds = ticks / os.sysconf("SC_CLK_TCK")
            if seconds > COMPUTING_SHARE * max(0.1, at - last["at"]):
                app.web_app.settings["api_last_activity"] = datetime.datetime.now(datetime.timezone.utc)
        last.update(used=used, at=at)

    look()
    watch = PeriodicCallback(look, 1000 * SAMPLE_SECONDS)
    watch.start()


def identity_provider():
    """The class by which jupyter_server 2 recognises requests that came through the portal."""
    from jupyter_server.auth import IdentityProvider, User

    account = os.environ.get("USER") or os.environ.get("LOGNAME") or "user"
    try:
        full_name = pwd.getpwnam(account).pw_gecos.split(",")[0].strip()
    except KeyError:
        full_name = ""  # a container may not know the account
    secret = SECRET.encode("ascii")
    header = SETTINGS["secret_header"]

    class PortalIdentity(IdentityProvider):
        """A request with the session's secret is the owner's; there is no other way in, and no cookie for it.

        The secret is no Jupyter token: pages do not show it, and checks against cross-site requests stay on.
        """

        def get_user(self, handler):
            """The owner of the session, or None."""
            given = handler.request.headers.get(header, "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, secret):
                return None
            return User(username=account, name=full_name or account, display_name=full_name or account)

        def is_token_authenticated(self, handler):
            """Never, so that Jupyter goes on checking where a request comes from."""
            return False

        @property
        def login_available(self):
            """There is nothing to log in to."""
            return False

        @property
        def logout_available(self):
            """And nothing to log out of."""
            return False

    return PortalIdentity


def insist(app, section):
    """Set our values once more when all configuration has been read, from wherever: now they are the last word."""
    init_configurables = app.init_configurables

    def init_with_ours():
        for name, value in section.items():
            if app.has_trait(name):
                setattr(app, name, value)
        return init_configurables()

    app.init_configurables = init_with_ours


def use_free_port(app, server, flavor):
    """Let the kernel choose the port when it is bound, or bind a socket, and tell the portal once the server runs.

    jupyter_server 2 looks for a free port, closes it and binds it later: in between another program may take it.
    Older servers bind port 0 and go on saying 0. Here the port is bound once, early, and kept.
    """
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop
    from tornado.netutil import bind_sockets, bind_unix_socket
    from tornado.tcpserver import TCPServer

    init_webapp, listen, add_sockets = app.init_webapp, TCPServer.listen, TCPServer.add_sockets
    bound = []

    def bind_first():
        path = socket_path()
        if path:
            bound.append(bind_unix_socket(path, mode=0o600))
            return init_webapp()
        bound.extend(bind_sockets(0, app.ip))
        app.port = bound[0].getsockname()[1]
        return init_webapp()

    def is_jupyter(tcp_server):
        """Extensions may open servers of their own: those are none of our business."""
        callback = getattr(tcp_server, "request_callback", None)
        return isinstance(tcp_server, HTTPServer) and callback is getattr(app, "web_app", app)

    def listen_as_bound(self, port, *args, **kwargs):
        if is_jupyter(self) and bound:
            return self.add_sockets(bound)
        return listen(self, port, *args, **kwargs)

    def add_and_tell(self, sockets):
        sockets = list(sockets)
        result = add_sockets(self, sockets)
        places = [("port", s.getsockname()[1]) for s in sockets if s.family in (socket.AF_INET, socket.AF_INET6)]
        places += [("socket", s.getsockname()) for s in sockets if s.family == socket.AF_UNIX]
        if places and is_jupyter(self):
            IOLoop.current().add_callback(tell_portal, app, places[0], server, flavor)
        return result

    app.init_webapp = bind_first
    TCPServer.listen, TCPServer.add_sockets = listen_as_bound, add_and_tell
    if hasattr(app, "_find_http_port"):
        app._find_http_port = lambda: None


def socket_path():
    """Where to listen so that no port is open on the network; empty where a port of loopback is wanted instead.

    The folder is the job's own, local and closed to others. Where its name is too long for a socket, a port has to do.
    """
    path = os.path.join(os.environ.get("JUPYTER_RUNTIME_DIR", ""), "server.sock")
    if not SETTINGS.get("listen_on_socket"):
        return ""
    if not path.startswith("/") or len(path.encode("utf-8")) > LONGEST_SOCKET_PATH:
        sys.stdout.write("The server listens on a port, because the name of its folder is too long for a socket.\n")
        return ""
    return path


def tell_portal(app, place, server, flavor):
    """Write the connection file, complete or not at all. Called when the server's loop runs.

    ``place``: ("port", number) or ("socket", path).
    """
    kind, where = place
    if kind == "port":
        app.port = where
        try:
            app.write_server_info_file()  # "jupyter server list" in a terminal shows the true port
        except Exception:
            traceback.print_exc()
    connection = {
        "version": 1,
        "session": SETTINGS["session"],
        "host": os.environ.get("FOOTBRIDGE_HOST") or socket.gethostname(),
        kind: where,
        "base_url": app.base_url,
        "flavor": flavor,
        "pid": os.getpid(),
        "server": server,
    }
    try:
        handle, path = tempfile.mkstemp(prefix=".connection.", dir=FOLDER)  # mode 0600
        with os.fdopen(handle, "w") as file:
            json.dump(connection, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path, os.path.join(FOLDER, SETTINGS["connection_name"]))
    except OSError:
        traceback.print_exc()
        give_up(EXIT_CONFIG_FAILED, "config_failed", "The connection file could not be written.")
    mark("step=listening")
    watch_idleness(app)
    watch_programs(app)


def mark(text):
    """A line for the portal."""
    import time

    at = " at=%d" % time.time() if text.startswith("step=") else ""
    sys.stdout.write("footbridge: %s%s\n" % (text, at))
    sys.stdout.flush()


def answer_at_once():
    """No Nagle on WebSockets: small messages of a kernel would otherwise wait 40 ms for the other side's
    ACK."""
    from tornado.http1connection import HTTP1Connection

    detach = HTTP1Connection.detach

    def detach_without_delay(self):
        stream = detach(self)
        stream.set_nodelay(True)
        return stream

    HTTP1Connection.detach = detach_without_delay


def talk_through_sockets():
    """Give Python kernels Unix sockets in the job's private folder instead of TCP ports.

    On a shared computer anybody could read along on a port: what a kernel prints is signed but not
    encrypted. Only for kernels that this Python starts with ipykernel: those for R and Julia cannot, others
    may run somewhere else.
    """
    from jupyter_client.manager import KernelManager

    init = KernelManager.__init__

    def init_with_sockets(self, *args, **kwargs):
        init(self, *args, **kwargs)
        try:
            argv = list(self.kernel_spec.argv)
            is_ours = os.path.basename(argv[0]).startswith("python") and "ipykernel_launcher" in argv
            path = os.path.abspath(self.connection_file)
            if is_ours and self.transport == "tcp" and len(path.encode("utf-8")) < LONGEST_SOCKET_PATH:
                self.transport = "ipc"
        except Exception:
            self.transport = "tcp"

    KernelManager.__init__ = init_with_sockets


def never_miss_the_end(app):
    """Handle the request to stop in the server's loop.

    Jupyter's own handler writes to the log at once. When the signal comes just while something else is written there,
    that raises, and the request is lost: the job would go on until it is killed, with its kernels.
    """
    signal_stop = app._signal_stop

    def stop_soon(number, frame):
        app.io_loop.add_callback_from_signal(signal_stop, number, frame)

    app._signal_stop = stop_soon


def forget_spared_imports():
    """What functions.sh put on the path for a quick start is not for kernels and terminals."""
    spared = os.path.join(os.environ.get("JUPYTER_RUNTIME_DIR", ""), "spared")
    sys.path[:] = [folder for folder in sys.path if folder != spared]
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [folder for folder in path if folder not in ("", spared)]
    if rest:
        os.environ["PYTHONPATH"] = os.pathsep.join(rest)
    else:
        os.environ.pop("PYTHONPATH", None)


def interrupts_work():
    """A shell starts background processes with two signals ignored; kernels and terminals would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def configure(config, app):
    """Apply all of the above to ``app``, and to ``config``."""
    server, flavor = describe(app)
    section = config.NotebookApp if is_classic(app) else config.ServerApp
    set_common(section)
    if is_classic(app):
        section.notebook_dir = os.getcwd()
    else:
        section.root_dir = os.getcwd()
    if flavor == "identity":
        provider = identity_provider()
        section.identity_provider_class = provider
        config.IdentityProvider.token = ""
        config.PortalIdentity.token = ""
        section.sock = ""
    else:
        section.token = SECRET
        section.password = ""
        section.allow_password_change = False
    config.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"  # compute nodes have no way out
    config.LabApp.news_url = None
    insist(app, section)
    use_free_port(app, server, flavor)
    answer_at_once()
    talk_through_sockets()
    count_only_work(app)
    never_miss_the_end(app)
    interrupts_work()
    forget_spared_imports()


try:
    FOLDER = os.path.dirname(os.path.abspath(__file__))
    SETTINGS = json.loads(read("settings.json"))
    SECRET = read(SETTINGS["secret_name"])
    if len(SECRET) < 32:
        raise ValueError("the secret is too short")
    _app = running_app()
    if _app is None:
        raise RuntimeError("not read by a Jupyter server")
    configure(get_config(), _app)  # noqa: F821  # traitlets gives get_config to every configuration file
except Exception:
    traceback.print_exc(file=sys.stdout)
    give_up(EXIT_CONFIG_FAILED, "config_failed", "The server's configuration could not be applied.")
