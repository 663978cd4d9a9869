#!/usr/bin/env python3
"""Makes captured.h anew: frames that the kernel sent over a veth pair, for tests of the small IP host. Needs root; its namespaces end with it.

Usage: capture.py > captured.h
The station under test is B (10.9.0.2, fd09::2, 02:00:00:00:00:0b); everything is sent by A (10.9.0.1, fd09::1, 02:00:00:00:00:0a), which is also B's router into
a network of smaller MTU (1300). B's own datagrams to A are captured too (names b_...): what the kernel makes where we make ours.
"""
import ctypes
import os
import socket
import subprocess
import sys
import time

A, B = f'tern-cap-a-{os.getpid()}', f'tern-cap-b-{os.getpid()}'
MAC = {A: '02:00:00:00:00:0a', B: '02:00:00:00:00:0b'}
frames = {}


def run(text):
    subprocess.run(text.split(), check=True, stdout=subprocess.DEVNULL)


def inside(ns, text):
    run(f'ip netns exec {ns} {text}')


def python(ns, text):
    subprocess.run(['ip', 'netns', 'exec', ns, sys.executable, '-c', 'import socket\n' + text], check=True)


def set_up():
    for ns in (A, B):
        run(f'ip netns add {ns}')
        inside(ns, 'sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0')
    run(f'ip link add v0 netns {A} address {MAC[A]} type veth peer name v0 netns {B} address {MAC[B]}')
    inside(A, 'ip link add w0 type veth peer name w1')
    for ns, n in ((A, 1), (B, 2)):
        inside(ns, 'ethtool -K v0 tx off tso off gso off gro off')
        inside(ns, f'ip addr add 10.9.0.{n}/24 dev v0')
        inside(ns, f'ip addr add fd09::{n}/64 dev v0 nodad')
        inside(ns, 'ip link set v0 up')
    for text in ('ip link set w0 mtu 1300', 'ip addr add 10.10.0.1/24 dev w0', 'ip addr add fd10::1/64 dev w0 nodad', 'ip link set w0 up', 'ip link set w1 up'):
        inside(A, text)
    inside(B, 'ip route add default via 10.9.0.1')
    inside(B, 'ip route add fd10::/64 via fd09::1')


def listener(ns):
    """A packet socket inside the namespace."""
    fd = os.open('/proc/self/ns/net', os.O_RDONLY)
    other = os.open(f'/run/netns/{ns}', os.O_RDONLY)
    ctypes.CDLL(None).setns(other, 0x40000000)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind(('v0', 0))
    ctypes.CDLL(None).setns(fd, 0x40000000)
    s.settimeout(3)
    return s


def catch(s, name, cause, wanted):
    """Runs cause, keeps the first frame that is wanted."""
    s.setblocking(False)
    while True:
        try:
            s.recv(65536)
        except BlockingIOError:
            break
    s.settimeout(3)
    cause()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        frame, address = s.recvfrom(65536)
        if wanted(frame, address):
            frames[name] = frame
            return
    raise SystemExit(f'{name}: not seen')


def udp(ns, family, to, port, payload, tos=0):
    option = f's.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, {tos})' if family == 'AF_INET' else f's.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, {tos})'
    discover = 's.setsockopt(0, 10, 2)' if family == 'AF_INET' else 's.setsockopt(41, 23, 2)'
    python(ns, f's = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n{option}\n{discover}\ns.bind(("", 5001))\ntry:\n\ts.sendto({payload!r}, ("{to}", {port}))\nexcept OSError as e:\n\tprint(e)')


def echo4(ns, to):
    python(ns, f'''
m = bytes([8, 0, 0, 0, 0, 7, 0, 1]) + bytes(range(77))
n = sum(int.from_bytes((m + bytes(1))[i:i + 2], "big") for i in range(0, len(m), 2))
n = (n & 0xffff) + (n >> 16)
m = m[:2] + (~n & 0xffff).to_bytes(2, "big") + m[4:]
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(m, ("{to}", 0))''')


def echo6(ns, to):
    python(ns, f's = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)\ns.sendto(bytes([128, 0, 0, 0, 0, 7, 0, 1]) + bytes(range(77)), ("{to}", 0))')


def main():
    b = listener(B)
    sent, incoming = (lambda a: a[2] == socket.PACKET_OUTGOING), (lambda a: a[2] != socket.PACKET_OUTGOING)
    text = b'The arctic tern has the longest journey of all birds'
    is4 = lambda f, p: f[12:14] == b'\x08\x00' and f[23] == p
    is6 = lambda f, p: f[12:14] == b'\x86\xdd' and f[20] == p
    icmp6 = lambda t: lambda f, a: incoming(a) and is6(f, 58) and f[54] == t
    arp = lambda op: lambda f, a: incoming(a) and f[12:14] == b'\x08\x06' and f[21] == op
    catch(b, 'arp_request', lambda: udp(A, 'AF_INET', '10.9.0.2', 7400, text), arp(1))
    inside(B, 'ip neigh flush all')
    catch(b, 'arp_reply', lambda: udp(B, 'AF_INET', '10.9.0.1', 7400, text), arp(2))
    inside(A, 'ip neigh flush all')
    catch(b, 'solicit', lambda: udp(A, 'AF_INET6', 'fd09::2', 7400, text), icmp6(135))
    inside(B, 'ip neigh flush all')
    catch(b, 'advertise', lambda: udp(B, 'AF_INET6', 'fd09::1', 7400, text), icmp6(136))
    for name, family, to, proto in (('4', 'AF_INET', '10.9.0.2', is4), ('6', 'AF_INET6', 'fd09::2', is6)):
        catch(b, f'udp{name}', lambda: udp(A, family, to, 7400, text), lambda f, a: incoming(a) and proto(f, 17))
        catch(b, f'udp{name}_odd', lambda: udp(A, family, to, 7400, text[:7], 0xbb), lambda f, a: incoming(a) and proto(f, 17))
        catch(b, f'udp{name}_empty', lambda: udp(A, family, to, 7400, b''), lambda f, a: incoming(a) and proto(f, 17))
        far = to.replace('::2', '::1').replace('.0.2', '.0.1')
        catch(b, f'b_udp{name}', lambda: udp(B, family, far, 7400, text, 0xb9), lambda f, a: sent(a) and proto(f, 17))
    catch(b, 'echo4', lambda: echo4(A, '10.9.0.2'), lambda f, a: incoming(a) and is4(f, 1))
    catch(b, 'echo6', lambda: echo6(A, 'fd09::2'), icmp6(128))
    big = bytes(1300)
    catch(b, 'pmtu4', lambda: udp(B, 'AF_INET', '10.10.0.7', 7400, big), lambda f, a: incoming(a) and is4(f, 1) and f[34] == 3)
    catch(b, 'pmtu6', lambda: udp(B, 'AF_INET6', 'fd10::7', 7400, big), icmp6(2))
    inside(A, 'ip link set v0 mtu 1280')
    loose = lambda family, to: python(A, f's = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.sendto(bytes(2000), ("{to}", 7400))')
    catch(b, 'fragment4', lambda: loose('AF_INET', '10.9.0.2'), lambda f, a: incoming(a) and f[12:14] == b'\x08\x00' and (f[20] & 0x20 or f[21]))
    catch(b, 'fragment6', lambda: loose('AF_INET6', 'fd09::2'), lambda f, a: incoming(a) and is6(f, 44))


def show():
    print('/* Frames as this kernel sent them, made by capture.py beside this file; used by the tests of the small IP host. */')
    for name, frame in frames.items():
        print(f'static const uint8_t captured_{name}[{len(frame)}] = {{')
        for at in range(0, len(frame), 23):
            print('\t' + ' '.join(f'0x{b:02x},' for b in frame[at:at + 23]))
        print('};')


try:
    set_up()
    main()
    show()
finally:
    for name in (A, B):
        subprocess.run(['ip', 'netns', 'del', name], check=False)
