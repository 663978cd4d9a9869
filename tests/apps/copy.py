#!/usr/bin/env python3
"""tern-copy as a user runs it: two processes, real files, real sockets; cuts, kills, full disks. One scenario a call.

Usage: copy.py TERN_COPY TERN_KEY TERN_MKSAFETENSORS SCENARIO      (SCENARIO "list" prints all)

After every step each file under its final name must be whole: that is checked everywhere. Exit status 77: skipped, the last line says why.
"""
import ctypes, json, os, pathlib, random, resource, shutil, signal, socket, struct, subprocess, sys, tempfile, time

COPY, KEY, MAKE = (os.path.abspath(p) for p in sys.argv[1:4])
SEED = int(os.environ.get('TERN_SEED', time.time_ns() % 2**32))
LIMIT_S = 60
rng = random.Random(SEED)
scenarios = {}
started = []


def scenario(f):
    scenarios[f.__name__] = f
    return f


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def check(what, text):
    if not what:
        raise Failed(text)


def free_port():
    """A port that was free for TCP and UDP a moment ago."""
    for _ in range(50):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(('127.0.0.1', 0))
            try:
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]
            except OSError:
                pass
    raise Failed('no free port')


class Proc:
    def __init__(self, args, env, **how):
        self.err = tempfile.TemporaryFile('w+')
        self.p = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=self.err, stdin=subprocess.DEVNULL, text=True, errors='replace', **how)
        self.lines = []
        started.append(self)

    def line(self):
        text = self.p.stdout.readline()
        if not text:
            return None
        self.lines.append(json.loads(text))
        return self.lines[-1]

    def until(self, event, bytes_=0):
        """Reads objects up to an event with so many bytes. @return it, None: the end"""
        while (got := self.line()) is not None:
            if got['event'] == event and got.get('bytes', 0) >= bytes_:
                return got
        return None

    def reach(self, bytes_):
        if not self.until('progress', bytes_):
            raise Failed(f'no progress: exit {self.end()}: {self.text}')

    def end(self):
        """@return the exit status; all lines are in self.lines, text in self.text"""
        while self.line() is not None:
            pass
        status = self.p.wait(LIMIT_S)
        self.err.seek(0)
        self.text = self.err.read()
        return status

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()


class Bed:
    """A folder with `here` and `there`, a key, and an address for both ends."""

    def __init__(self, root, emu=None, private=False):
        self.root = root
        self.here, self.there = root / 'here', root / 'there'
        self.here.mkdir()
        self.there.mkdir()
        self.env = dict(os.environ, TERN_KEY=str(root / 'key'))
        self.env.pop('TERN_CONTRACT', None)
        subprocess.run([KEY, str(root / 'key')], check=True, stdout=subprocess.DEVNULL)
        self.options = ['--json'] + (['--private'] if private else [])
        self.query = ''
        if emu:
            (root / 'link.ini').write_text('[link]\n' + emu + '\n')
            self.query = f'?emu={root}/link.ini'
            rate = emu.split('rate = ')[1].split()[0].replace('mbit', 'Mbit')
            (root / 'contract.ini').write_text(f'rate = {rate}\nrtt = 20ms\ndedicated = yes\nmtu = 1500\n')
            self.options += ['--contract', str(root / 'contract.ini')]
        self.port = free_port()

    def address(self):
        return f'udp://127.0.0.1:{self.port}{self.query}'

    def listen(self, *more, folder=None, program=None, **how):
        self.port = free_port()
        args = [program or COPY, *self.options, '--listen', self.address(), *(more or ['--once']), str(folder or self.there)]
        p = Proc(args, self.env, **how)
        p.up = p.until('listening')
        return p

    def send(self, *sources, more=(), env=None):
        return Proc([COPY, *self.options, *more, *map(str, sources), self.address()], env or self.env)

    def whole(self, folder=None, base=None):
        """Whatever has its final name is the same as its source. @return how many there are"""
        folder, base, n = folder or self.there, base or self.here, 0
        for path in folder.rglob('*'):
            if path.is_symlink() or not path.is_file() or path.name.startswith('.tern-resume') or path.name.endswith('.tern-part'):
                continue
            source = base / path.relative_to(folder)
            check(source.is_file() and source.read_bytes() == path.read_bytes(), f'{path} is not whole')
            n += 1
        return n

    def same(self, name):
        """All of one source has arrived, with modes and times, and nothing is left over."""
        a, b = self.here / name, self.there / name
        listing = lambda root: sorted(p.relative_to(root) for p in root.rglob('*')) if root.is_dir() else []
        check(listing(a) == listing(b), f'other names: {set(listing(a)) ^ set(listing(b))}')
        self.whole()
        for path in [b] if b.is_file() else [p for p in b.rglob('*') if p.is_file()]:
            source = self.here / path.relative_to(self.there)
            check(source.stat().st_mtime_ns == path.stat().st_mtime_ns and source.stat().st_mode == path.stat().st_mode, f'mode or time of {path}')
        left = [p for p in self.there.rglob('.*') if 'tern' in p.name]
        check(not left, f'left over: {left}')


def blob(path, n, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rng.randbytes(n))
    path.chmod(mode)


def both(bed, r, s, want_s, want_r, words=None):
    got_s, got_r = s.end(), r.end()
    check((got_s, got_r) == (want_s, want_r), f'exit {got_s}, {got_r}; wanted {want_s}, {want_r}\nsender: {s.text}receiver: {r.text}')
    if words:
        check(words in s.text, f'"{words}" is not in what the sender says: {s.text}')
    for p in (s, r):
        end = p.lines[-1] if p.lines else {}
        check(end.get('event') == 'end' and (end['exit'] == 0) == (end['status'] == 'ok'), f'last object {end}')


def tree(root):
    """Some hundred files, nested, with odd names and sizes."""
    odd = ['with space', 'ümläut', 'quote"\'', 'back\\slash', '-dash', 'line\nbreak', '%41', '.hidden', 'x' * 250, '…']
    for i, name in enumerate(odd):
        blob(root / 'odd' / name, i * 1000, 0o600)
    (root / 'odd' / os.fsdecode(b'bytes\xff\xfe')).write_bytes(b'not utf-8')
    for i in range(220):
        blob(root / f'd{i % 7}' / f'e{i % 3}' / f'f{i}', rng.choice([0, 1, 100, 4096, 70000, 262144, 262145]))
    blob(root / 'large', 50_000_000, 0o755)
    blob(root / 'exact', 1 << 20)
    (root / 'empty' / 'folder').mkdir(parents=True)
    os.symlink('large', root / 'link')


def run_tree(bed, keep=None):
    tree(bed.here / 'tree')
    r = bed.listen()
    s = bed.send(bed.here / 'tree')
    both(bed, r, s, 0, 0)
    (bed.here / 'tree' / 'link').unlink()
    (bed.there / 'tree' / 'link').unlink()  # arrives as the file it points to
    bed.same('tree')
    end = s.lines[-1]
    check(end['files'] == 234 and end['moved_bytes'] == end['bytes'] > 100_000_000, f'totals {end}')
    return end


@scenario
def plain(root):
    run_tree(Bed(root))


@scenario
def private(root):
    run_tree(Bed(root, private=True))


@scenario
def emulated(root):
    bed = Bed(root, 'delay = 10ms\nrate = 400mbit 28b\nlimit = 4mib\nloss = 0.01%')
    blob(bed.here / 'm' / 'a.bin', 12_000_000)
    for i in range(400):
        blob(bed.here / 'm' / 's' / f'{i}', rng.randrange(20000))
    r = bed.listen()
    s = bed.send(bed.here / 'm')
    both(bed, r, s, 0, 0)
    bed.same('m')
    check(s.lines[-1]['limit_bytes_per_s'] > 45_000_000, 'the contract is not in the result')
    check(any(x['event'] == 'start' for x in s.lines), 'no start object')


@scenario
def tensors(root):
    bed = Bed(root)
    (bed.here / 'm').mkdir()
    for size, seed in (('64KiB', 1), ('3MiB', 2), ('40MiB', 3)):
        subprocess.run([MAKE, '--bytes', size, '--seed', str(seed), str(bed.here / 'm' / f'{size}.safetensors')], check=True, stdout=subprocess.DEVNULL)
    (bed.here / 'm' / 'none.safetensors').write_bytes(struct.pack('<Q', 2) + b'{}')
    r = bed.listen()
    s = bed.send(bed.here / 'm')
    both(bed, r, s, 0, 0)
    bed.same('m')


@scenario
def truncated(root):
    bed = Bed(root)
    whole, cut = bed.here / 'w.safetensors', bed.here / 'cut.safetensors'
    subprocess.run([MAKE, '--bytes', '1MiB', str(whole)], check=True, stdout=subprocess.DEVNULL)
    cut.write_bytes(whole.read_bytes()[:-1000])
    s = bed.send(cut)
    check(s.end() == 4 and 'truncated' in s.text, f'not refused: {s.text}')
    r = bed.listen()
    both(bed, r, bed.send(cut, more=['--raw']), 0, 0)
    bed.same('cut.safetensors')


SLOW = 'delay = 5ms\nrate = 200mbit 28b\nlimit = 4mib'


def synced(folder):
    """How much of its first file the journal says is safe."""
    try:
        return json.loads((folder / '.tern-resume').read_text().splitlines()[0])['synced_bytes']
    except (OSError, IndexError):
        return 0


def cut_and_resume(root, kill_sender, name='big.bin'):
    bed = Bed(root, SLOW)
    if name.endswith('.safetensors'):
        subprocess.run([MAKE, '--bytes', '60MB', str(bed.here / name)], check=True, stdout=subprocess.DEVNULL)
    else:
        blob(bed.here / name, 60_000_000)
    r = bed.listen()
    s = bed.send(bed.here / name)
    # the checkpoint on disk is what is waited for
    s.reach(15_000_000)
    deadline = time.monotonic() + 20
    while synced(bed.there) < 5_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    check(synced(bed.there) >= 5_000_000, 'no journal')
    (s if kill_sender else r).kill()
    check(bed.whole() == 0, 'the file has its final name already')
    other = r if kill_sender else s
    check(other.end() == 1 and 'gone' in other.text, f'the other end: {other.text}')
    check(bed.whole() == 0, 'a half file has the final name')
    r = bed.listen()
    s = bed.send(bed.here / name, more=['--resume'])
    both(bed, r, s, 0, 0)
    bed.same(name)
    end = s.lines[-1]
    check(end['moved_bytes'] < end['bytes'] - 4_000_000, f'nothing was saved by resuming: {end}')
    # once more: all is there
    r = bed.listen()
    s = bed.send(bed.here / name, more=['--resume'])
    both(bed, r, s, 0, 0)
    check(s.lines[-1]['moved_bytes'] == 0, 'sent again')


@scenario
def kill_sender(root):
    cut_and_resume(root, True)


@scenario
def kill_receiver(root):
    cut_and_resume(root, False, 'm.safetensors')


@scenario
def resume_changed(root):
    """The source changed after the cut: the old beginning must not be used."""
    bed = Bed(root, SLOW)
    blob(bed.here / 'big.bin', 40_000_000)
    r = bed.listen()
    s = bed.send(bed.here / 'big.bin')
    s.reach(10_000_000)
    s.p.send_signal(signal.SIGINT)
    both(bed, r, s, 130, 1)
    check((bed.there / '.tern-resume').exists(), 'a cut that was announced leaves no journal')
    blob(bed.here / 'big.bin', 40_000_000)
    r = bed.listen()
    s = bed.send(bed.here / 'big.bin', more=['--resume'])
    both(bed, r, s, 0, 0)
    bed.same('big.bin')
    check(s.lines[-1]['moved_bytes'] == 40_000_000, 'bytes of the old version were used')


@scenario
def interrupted_receiver(root):
    bed = Bed(root, SLOW)
    blob(bed.here / 'big.bin', 40_000_000)
    r = bed.listen()
    s = bed.send(bed.here / 'big.bin')
    s.reach(5_000_000)
    r.p.send_signal(signal.SIGTERM)
    both(bed, r, s, 1, 130, 'interrupted')
    check(bed.whole() == 0, 'a half file has the final name')


@scenario
def wrong_key(root):
    bed = Bed(root)
    blob(bed.here / 'a', 1000)
    subprocess.run([KEY, str(root / 'key2')], check=True, stdout=subprocess.DEVNULL)
    r = bed.listen()
    s = bed.send(bed.here / 'a', env=dict(bed.env, TERN_KEY=str(root / 'key2')))
    check(s.end() == 6, f'exit {s.p.returncode}: {s.text}')
    s = bed.send(bed.here / 'a', env=dict(bed.env, TERN_KEY=str(root / 'none')))
    check(s.end() == 6, f'exit {s.p.returncode}: {s.text}')
    both(bed, r, bed.send(bed.here / 'a'), 0, 0)  # the listener lives
    bed.same('a')


@scenario
def nobody(root):
    bed = Bed(root)
    blob(bed.here / 'a', 1000)
    s = bed.send(bed.here / 'a')
    check(s.end() in (1, 6) and '127.0.0.1' in s.text, f'exit {s.p.returncode}: {s.text}')


@scenario
def usage(root):
    for args in ([], ['a'], ['--listen', 'x:1'], ['--listen', 'x:1', 'a', 'b'], ['--no-such'], ['--listen', 'x:1', '--resume', 'a']):
        p = subprocess.run([COPY, *args], capture_output=True, text=True)
        check(p.returncode == 2 and p.stderr, f'{args}: exit {p.returncode}')
    bed = Bed(root)
    s = bed.send(bed.here / 'missing')
    check(s.end() == 4 and 'missing' in s.text, f'exit {s.p.returncode}: {s.text}')
    blob(bed.here / 'x' / 'same', 10)
    blob(bed.here / 'y' / 'same', 10)
    s = bed.send(bed.here / 'x' / 'same', bed.here / 'y' / 'same')
    check(s.end() == 2 and 'same' in s.text, f'exit {s.p.returncode}: {s.text}')


def for_anybody(root):
    """A copy of the program and its library where every user can run it: the checkout may lie in a folder that only its owner enters."""
    folder = root / 'bin'
    folder.mkdir(mode=0o755)
    shutil.copy(COPY, folder)
    for lib in pathlib.Path(COPY).resolve().parents[2].glob('transport/libtern.so*'):
        if lib.is_file():
            shutil.copy(lib, folder)
    return str(folder / pathlib.Path(COPY).name)


@scenario
def not_writable(root):
    bed = Bed(root)
    blob(bed.here / 'd' / 'a', 2_000_000)
    bed.there.chmod(0o555)
    how = {}
    if os.geteuid() == 0:
        # root may write anywhere: the receiver becomes somebody else
        how = {'user': 65534, 'group': 65534, 'extra_groups': []}
        os.chmod(root, 0o755)
        shutil.copy(root / 'key', root / 'key3')
        os.chown(root / 'key3', 65534, 65534)
        program = for_anybody(root)
        env, bed.env = bed.env, dict(bed.env, TERN_KEY=str(root / 'key3'), LD_LIBRARY_PATH=str(root / 'bin'))
    r = bed.listen(**how, **({'program': program} if how else {}))
    if how:
        bed.env = env
        if r.up is None and 'key' in (r.end(), r.text)[1]:
            raise Skipped(f'another user cannot run it here: {r.text}')
    both(bed, r, bed.send(bed.here / 'd'), 5, 5, 'give the receiving user the right')


def tmpfs(root, size):
    """A small disk of our own, in a mount namespace of this process."""
    folder = root / 'disk'
    folder.mkdir()
    if os.geteuid() != 0:
        raise Skipped('a small disk needs root (tmpfs in a mount namespace)')
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) or libc.mount(b'none', b'/', None, 0x44000, None) or \
       libc.mount(b'tmpfs', os.fsencode(folder), b'tmpfs', 0, f'size={size}'.encode()):
        raise Skipped(f'a small disk is refused here: {os.strerror(ctypes.get_errno())}')
    return folder


@scenario
def disk_small(root):
    disk = tmpfs(root, 8_000_000)
    bed = Bed(root)
    blob(bed.here / 'a', 20_000_000)
    r = bed.listen(folder=disk)
    both(bed, r, bed.send(bed.here / 'a'), 5, 5, 'disk is full')
    check(bed.whole(disk) == 0, 'a half file has the final name')


@scenario
def disk_fills(root):
    disk = tmpfs(root, 64_000_000)
    bed = Bed(root, SLOW)
    blob(bed.here / 'a', 50_000_000)
    r = bed.listen(folder=disk)
    s = bed.send(bed.here / 'a')
    s.reach(4_000_000)
    hog = disk / '.tern-resume-hog'
    with open(hog, 'wb') as f:
        try:
            while True:
                f.write(bytes(1 << 20))
                f.flush()
        except OSError:
            pass
    both(bed, r, s, 5, 5, 'disk is full')
    check(bed.whole(disk) == 0, 'a half file has the final name')
    hog.unlink()
    r = bed.listen(folder=disk)
    s = bed.send(bed.here / 'a', more=['--resume'])
    both(bed, r, s, 0, 0)
    check(bed.whole(disk) == 1, 'not there')


def while_sent(root, act, words, private=False, size=40_000_000):
    bed = Bed(root, SLOW, private)
    path = bed.here / 'big.bin'
    blob(path, size)
    r = bed.listen()
    s = bed.send(path)
    s.reach(4_000_000)
    act(path)
    both(bed, r, s, 4, 4, words)
    check(not (bed.there / 'big.bin').exists(), 'a wrong file has the final name')


@scenario
def shrinks(root):
    while_sent(root, lambda p: os.truncate(p, 1000), 'shorter')


@scenario
def shrinks_private(root):
    while_sent(root, lambda p: os.truncate(p, 1000), 'shorter', True)


def overwrite(path):
    with open(path, 'r+b') as f:
        f.seek(-5, 2)
        f.write(b'other')


@scenario
def changes(root):
    # larger than what the sender reads ahead
    while_sent(root, overwrite, 'changed while it was sent', size=120_000_000)


@scenario
def corrupt(root):
    """Bytes that change behind the sender's back, its time set back: only the hash can tell."""
    bed = Bed(root, SLOW)
    path = bed.here / 'big.bin'
    blob(path, 60_000_000)
    at = path.stat().st_mtime_ns
    r = bed.listen()
    s = bed.send(path)
    s.reach(4_000_000)
    with open(path, 'r+b') as f:
        f.write(bytes(60_000_000))
    os.utime(path, ns=(at, at))
    both(bed, r, s, 3, 3, 'xxh3')
    check(not list(bed.there.iterdir()), f'left over: {list(bed.there.iterdir())}')


@scenario
def vanishes(root):
    while_sent(root, os.unlink, 'vanished while it was sent', size=120_000_000)


@scenario
def link_out(root):
    bed = Bed(root)
    blob(bed.here / 'd' / 'a', 1000)
    outside = root / 'outside'
    outside.mkdir()
    os.symlink(outside, bed.there / 'd')
    r = bed.listen()
    both(bed, r, bed.send(bed.here / 'd'), 5, 5, 'symbolic link')
    check(not list(outside.iterdir()), 'written outside')


@scenario
def folder_in_the_way(root):
    bed = Bed(root)
    blob(bed.here / 'a', 1000)
    (bed.there / 'a').mkdir()
    r = bed.listen()
    both(bed, r, bed.send(bed.here / 'a'), 5, 5, 'a folder of that name')


@scenario
def steering_name(root):
    """Control characters of a file's name are fine on the disk, and never reach the terminal of either end."""
    bed = Bed(root)
    name = 'a\033[2J\r\177b'
    blob(bed.here / name, 1000)
    both(bed, bed.listen(), bed.send(bed.here / name), 0, 0)
    bed.same(name)
    (bed.there / name).unlink()
    (bed.there / name).mkdir()
    r, s = bed.listen(), bed.send(bed.here / name)
    both(bed, r, s, 5, 5, 'a folder of that name')
    for end in (r, s):
        check('a?[2J??b' in end.text and not any(c in end.text for c in '\033\r\177'), repr(end.text))


@scenario
def several(root):
    """A listener without --once serves senders one after the other, whoever comes first."""
    bed = Bed(root)
    for i in range(3):
        blob(bed.here / f'f{i}', 9_000_000 + i)
    r = bed.listen('--verbose')
    senders = [bed.send(bed.here / f'f{i}') for i in range(3)]
    for s in senders:
        check(s.end() == 0, s.text)
    r.p.send_signal(signal.SIGINT)
    check(r.end() == 130, r.text)
    for i in range(3):
        bed.same(f'f{i}')
    check(sum(x['event'] == 'end' for x in r.lines) == 3, 'three ends')


@scenario
def contents(root):
    """DIR/ sends what is in it; a file already there is replaced."""
    bed = Bed(root)
    blob(bed.here / 'a', 1000)
    blob(bed.here / 'b' / 'c', 1000)
    blob(bed.there / 'a', 5000)
    r = bed.listen()
    both(bed, r, bed.send(str(bed.here) + '/'), 0, 0)
    check(bed.whole() == 2, 'other files')


def main():
    name = sys.argv[4]
    if name == 'list':
        print(*scenarios)
        return 0
    print(f'TERN_SEED={SEED}')
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    root = pathlib.Path(tempfile.mkdtemp(prefix='tern-copy-'))
    try:
        scenarios[name](root)
    except Skipped as reason:
        print(f'SKIP: {reason}')
        return 77
    except Failed as reason:
        print(f'FAILED {name}: {reason}')
        return 1
    finally:
        for p in started:
            p.kill()
        if (root / 'disk').is_mount():
            ctypes.CDLL(None).umount2(os.fsencode(root / 'disk'), 2)  # MNT_DETACH
        shutil.rmtree(root, ignore_errors=True)
    print(f'ok {name}')
    return 0


sys.exit(main())
