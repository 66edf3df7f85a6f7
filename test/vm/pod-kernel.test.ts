import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { buildImage } from '../images/build-images.ts';
import { networkToolsRecipe } from '../images/recipes.ts';
import { freePort, type Registry, startRegistry } from '../images/registry.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode } from './cli-node.ts';

const skip = await whyNoVm();

/** Rules of a service mesh's init container, added with both of iptables' interfaces to the kernel. */
const redirect = `
for family in iptables ip6tables; do
  $family-nft -t nat -N MESH
  $family-nft -t nat -A MESH -p tcp --dport 80 -m comment --comment mesh -j REDIRECT --to-ports 15001
  $family-nft -t nat -A OUTPUT -m owner ! --uid-owner 1337 -m addrtype ! --dst-type MULTICAST -j MESH
  $family-legacy -t nat -A OUTPUT -p tcp --dport 81 -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 15001
done
iptables-nft -t nat -A PREROUTING -p tcp -m multiport --dports 8080 -j REDIRECT --to-ports 15001
iptables-nft -t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED -m mark --mark 0 -j MARK --set-mark 1
iptables-nft -A INPUT -m limit --limit 5/s -j ACCEPT`;

/** One line for each thing that works. */
const tools = `
try() { name=$1; shift; "$@" >/tmp/said 2>&1 && echo "$name works" || { echo "$name fails:"; cat /tmp/said; }; }
for kind in bridge dummy ifb vrf; do
  [ $kind = vrf ] && more="table 10" || more=
  try $kind /sbin/ip link add $kind-a type $kind $more
done
try veth /sbin/ip link add left type veth peer name right
try vlan /sbin/ip link add link left name left.7 type vlan id 7
try macvlan /sbin/ip link add mv0 link left type macvlan mode bridge
try ipvlan /sbin/ip link add iv0 link right type ipvlan
try vxlan /sbin/ip link add vx0 type vxlan id 7 dstport 4789 dev lo
try geneve /sbin/ip link add ge0 type geneve id 7 remote 127.0.0.1
try wireguard /sbin/ip link add wg0 type wireguard
try gre /sbin/ip link add gr0 type gretap local 127.0.0.1 remote 127.0.0.2
try tun /sbin/ip tuntap add dev tun0 mode tun
try tap /sbin/ip tuntap add dev tap0 mode tap
try qdisc /sbin/tc qdisc add dev left root tbf rate 1mbit burst 32kbit latency 400ms
try nftables nft 'add table inet t; add chain inet t c { type nat hook prerouting priority -100; };
  add set inet t s { type ipv4_addr; flags interval; }; add rule inet t c ip daddr @s counter dnat ip to 10.0.0.1;
  add rule inet t c meta l4proto tcp ct state new limit rate 5/second log prefix "x"; add rule inet t c fib daddr type local accept;
  add chain inet t p { type nat hook postrouting priority 100; }; add rule inet t p oifname eth9 masquerade'
try ipset ipset create addresses hash:net
try ipset-rule iptables-nft -A FORWARD -m set --match-set addresses src -j REJECT
try ipvs ipvsadm -A -t 10.9.9.9:80 -s rr
try xfrm /sbin/ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 1 mode transport enc 'cbc(aes)' 0x00112233445566778899aabbccddeeff auth 'hmac(sha256)' 0x01
try open test -c /dev/net/tun`;

const kinds =
  'bridge dummy ifb vrf veth vlan macvlan ipvlan vxlan geneve wireguard gre tun tap qdisc nftables ipset ipset-rule xfrm';

const indented = (script: string) =>
  script
    .trim()
    .split('\n')
    .map((line) => `        ${line}`)
    .join('\n');

describe("a pod's own kernel", { skip, timeout: 600_000 }, () => {
  let registry: Registry;
  let cli: CliNode;
  let image: string;

  before(async () => {
    registry = await startRegistry();
    await registry.push(await buildImage(networkToolsRecipe, new AbortController().signal), networkToolsRecipe.name);
    image = `${registry.name}/${networkToolsRecipe.name}`;
    cli = await openCliNode({ isSetUp: true });
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
  });

  const container = (name: string, security: string, script: string, more = '') => `
  - name: ${name}
    image: ${image}
    securityContext: ${security}
    ${more}
    command: [busybox, sh, -ec]
    args:
      - |
${indented(script)}`;
  const pod = (name: string, more: string, containers: string, init = '') => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  ${more}
  initContainers:${init === '' ? ' []' : init}
  containers:${containers}`;
  const netAdmin = '{capabilities: {add: [NET_ADMIN, NET_RAW]}}';
  const nobody = '{runAsUser: 1000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}';

  test("a mesh's init container redirects traffic of unprivileged containers, and from outside", async () => {
    const hostPort = await freePort();
    const proxy = 'exec busybox nc -ll -p 15001 -e echo by the proxy';
    const app = `
      until echo | busybox nc -w 5 127.0.0.1 15001 >/dev/null 2>&1; do busybox usleep 100000; done
      for to in '192.0.2.1 80' '192.0.2.1 81' '::1 80' '::1 81'; do echo "$to $(busybox nc -w 20 $to </dev/null)"; done
      echo waiting; exec sleep 1000`;
    const running = cli.start(
      ['run', '-'],
      pod(
        'mesh',
        '',
        container('proxy', '{runAsUser: 1337}', proxy, `ports: [{containerPort: 8080, hostPort: ${hostPort}}]`) +
          container('app', nobody, app),
        container('rules', netAdmin, redirect),
      ),
    );
    await running.shows(/app +\| waiting/);
    for (const to of ['192.0.2.1 80', '192.0.2.1 81', '::1 80', '::1 81'])
      assert.match(running.stdout(), new RegExp(`app +\\| ${to} by the proxy`), running.stderr());
    assert.equal(await answerOf(hostPort), 'by the proxy\n');
    running.child.kill('SIGINT');
    await running.ended;
  });

  test('has the links, tunnels, tables and sets that its containers ask for', async () => {
    const said = await cli.type(['run', '-'], pod('tools', '', container('main', netAdmin, tools)));
    assert.equal(said.code, 0, said.stdout + said.stderr);
    for (const kind of [...kinds.split(' '), 'ipvs'])
      assert.match(said.stdout, new RegExp(`${kind} works$`, 'm'), said.stdout);
  });

  test('has them in a pod with a user namespace, too', async () => {
    const said = await cli.type(['run', '-'], pod('users', 'hostUsers: false', container('main', netAdmin, tools)));
    for (const kind of kinds.split(' ')) assert.match(said.stdout, new RegExp(`${kind} works$`, 'm'), said.stdout);
  });

  test('loads no module by a container itself, privileged or not, and none that is not signed', async () => {
    const look = `
      /sbin/ip link add dummy1 type dummy && echo made
      busybox grep CapEff /proc/self/status
      busybox cat /sys/module/module/parameters/sig_enforce /proc/sys/kernel/usermodehelper/bset
      echo nothing >/tmp/x.ko; busybox insmod /tmp/x.ko || true
      /sbin/ip link add can0 type vcan || echo refused
      test -c /dev/net/tun && echo tun`;
    const said = await cli.type(['run', '-'], pod('privileged', '', container('main', '{privileged: true}', look)));
    assert.match(said.stdout, /made\nCapEff:\t000001fffffeffff\nY\n0\s+0\n/, said.stdout + said.stderr);
    assert.match(said.stdout + said.stderr, /insmod: [^\n]+Operation not permitted/);
    assert.match(said.stdout, /refused\ntun\n/);
  });

  test('an unprivileged user binds low ports, pings by both families, and opens as many files as elsewhere', async () => {
    const look = `
      busybox cp /usr/bin/ping /tmp/ping
      /tmp/ping -c 1 -W 5 127.0.0.1 >/dev/null && /tmp/ping -c 1 -W 5 ::1 >/dev/null && echo pinged
      ulimit -n; ulimit -Hn; busybox wc -l </proc/modules >/dev/null
      /sbin/ip link add x type dummy || echo refused
      busybox httpd -f -p '[::1]:80'`;
    const running = cli.start(['run', '-'], pod('plain', '', container('main', nobody, look)));
    await running.shows(/refused/);
    assert.match(running.stdout(), /pinged\n1048576\n1048576\nrefused/);
    const limit = await cli.type(['exec', 'plain', '--', 'busybox', 'sh', '-c', 'ulimit -n']);
    assert.equal(limit.stdout, '1048576\n', limit.stderr + running.stdout() + running.stderr());
    running.child.kill('SIGINT');
    await running.ended;
  });
});

async function answerOf(port: number): Promise<string> {
  const { connect } = await import('node:net');
  const socket = connect(port, '127.0.0.1');
  socket.end();
  return Buffer.concat(await Array.fromAsync(socket as AsyncIterable<Buffer>)).toString();
}
