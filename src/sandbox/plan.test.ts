import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { kindOf, PodvmError } from '#base/errors.ts';
import { allCapabilities, ambientOf, capabilitiesOf, defaultCapabilities } from './container/capabilities.ts';
import { checkContainerSpec, checkSandboxSpec } from './container/check-spec.ts';
import { containerSpec, sandboxSpec, security } from './testing/examples.ts';
import { etcHostsOf, plainAddresses, resolvConfOf } from './container/etc-files.ts';
import { createInbox, maxWaitingRequests } from './state/inbox.ts';
import { createMoves } from './state/moves.ts';
import { createNames, createUserIds } from './names.ts';
import { processOf, stopSignalOf } from './container/process.ts';
import { cgroupResourcesOf, checkResources, machineSizeOf, minMemoryLimitBytes, hostLimitsOf } from './resources.ts';
import { sandboxMoves, type Resources, type SandboxState } from './sandbox.ts';
import { runtimeDefault, seccompOf } from './container/seccomp.ts';
import { allowedSyscalls, syscallsByCapability } from './container/syscalls.ts';

const is = (kind: string) => (error: unknown) => error instanceof PodvmError && error.kind === kind;
const sizes = {
  defaultMemoryMiB: 512,
  nominalMemoryMiB: 1024,
  overheadMiB: 128,
  vmmOverheadMiB: 192,
  vmmOverheadMillis: 1000,
  maxMemoryMiB: 4096,
  maxVcpus: 4,
  defaultScratchBytes: 1e9,
};

test('checkResources() refuses limits in which nothing can run, and names the minimum', () => {
  assert.throws(
    () => checkResources('pod a/b', { memoryLimitBytes: 1024 }),
    (error) => {
      assert.ok(error instanceof PodvmError && error.kind === 'invalid');
      assert.match(error.message, /at least 1048576 bytes \(1Mi\).*got 1024/);
      return true;
    },
  );
  assert.throws(() => checkResources('pod a/b', { ephemeralStorageBytes: 1 }), is('invalid'));
  assert.throws(() => checkResources('pod a/b', { pidsLimit: 0 }), is('invalid'));
  assert.throws(() => checkResources('pod a/b', { cpuLimitMillis: 0 }), is('invalid'));
  checkResources('pod a/b', { memoryLimitBytes: minMemoryLimitBytes });
});

test('machineSizeOf() adds the machine’s own needs, and reduces limits to the node’s resources', () => {
  assert.deepEqual(machineSizeOf('p', { memoryLimitBytes: 256 * 1024 ** 2, cpuLimitMillis: 1500 }, sizes), {
    memoryMiB: 384,
    vcpus: 2,
    nominal: { memoryMiB: 1024, vcpus: sizes.maxVcpus },
    scratchBytes: 1e9,
    resources: { memoryLimitBytes: 256 * 1024 ** 2, cpuLimitMillis: 1500 },
    warnings: [],
  });
  assert.equal(machineSizeOf('p', {}, sizes).memoryMiB, 512);
  assert.equal(machineSizeOf('p', { memoryLimitBytes: 1000 * 1024 ** 2 }, sizes).nominal, undefined);
  const huge = { memoryLimitBytes: 2 ** 60, cpuLimitMillis: 2 ** 60, ephemeralStorageBytes: 2 ** 60 };
  const { memoryMiB, vcpus, scratchBytes, resources, warnings } = machineSizeOf('pod a/b', huge, sizes);
  assert.deepEqual([memoryMiB, vcpus, scratchBytes], [4096, 4, 1024 ** 4]);
  assert.deepEqual([resources.memoryLimitBytes, resources.cpuLimitMillis], [(4096 - 128) * 1024 ** 2, 4000]);
  assert.equal(warnings.length, 2);
  assert.match(
    warnings[0] ?? '',
    /^The memory limit of pod a\/b, 1099511627776 MiB, is more than there is: it has 3968 MiB$/,
  );
  assert.equal(machineSizeOf('p', { memoryLimitBytes: (4096 - 128) * 1024 ** 2 }, sizes).warnings.length, 0);
});

test('hostLimitsOf() adds the needs of kernel, agent and VMM, up to the whole machine', () => {
  const mebibyte = 1024 ** 2;
  const bytesOf = (resources: Resources) => hostLimitsOf(resources, 1024, sizes).memoryBytes;
  assert.equal(bytesOf({}), (1024 + 192) * mebibyte);
  assert.equal(bytesOf({ memoryLimitBytes: 64 * mebibyte }), (64 + 128 + 192) * mebibyte);
  assert.equal(bytesOf({ memoryLimitBytes: 1000 * mebibyte }), (1024 + 192) * mebibyte);
  assert.deepEqual(hostLimitsOf({ cpuLimitMillis: 500, cpuRequestMillis: 400 }, 1024, sizes), {
    memoryBytes: (1024 + 192) * mebibyte,
    cpuMillis: 1500,
    cpuShares: 512,
    oomScoreAdj: 1000,
  });
  assert.equal(hostLimitsOf({ oomScoreAdj: -997 }, 1024, sizes).oomScoreAdj, -997);
  assert.equal(hostLimitsOf({}, 1024, sizes).cpuMillis, undefined);
  assert.equal(hostLimitsOf({}, 1024, sizes).cpuShares, 102);
});

test('cgroupResourcesOf() converts as kubelet does', () => {
  assert.deepEqual(cgroupResourcesOf({ cpuLimitMillis: 250, cpuRequestMillis: 100, pidsLimit: 9 }), {
    cpuQuotaUs: 25_000,
    cpuPeriodUs: 100_000,
    cpuShares: 102,
    pidsLimit: 9,
  });
  assert.equal(cgroupResourcesOf({ cpuLimitMillis: 1 }).cpuQuotaUs, 1000);
  assert.equal(cgroupResourcesOf({ cpuRequestMillis: 0 }).cpuShares, 2);
});

test('processOf() follows the table of command and args in the Kubernetes documentation', () => {
  const image = { entrypoint: ['/ep'], cmd: ['c1', 'c2'] };
  const argsOf = (own: object) => processOf({ ...containerSpec, ...own }, image, [], undefined).args;
  assert.deepEqual(argsOf({}), ['/ep', 'c1', 'c2']);
  assert.deepEqual(argsOf({ command: ['x'] }), ['x']);
  assert.deepEqual(argsOf({ args: ['y'] }), ['/ep', 'y']);
  assert.deepEqual(argsOf({ command: ['x'], args: ['y'] }), ['x', 'y']);
  assert.throws(() => processOf(containerSpec, {}, [], undefined), is('invalid'));
});

test('processOf() treats an empty list as absent, and accepts ENTRYPOINT [""] of an image', () => {
  const argsOf = (own: object, image: object) => processOf({ ...containerSpec, ...own }, image, [], undefined).args;
  const image = { entrypoint: ['/ep'], cmd: ['c'] };
  assert.deepEqual(argsOf({ command: [], args: [] }, image), ['/ep', 'c']);
  assert.deepEqual(argsOf({ command: [], args: ['mine'] }, image), ['/ep', 'mine']);
  assert.deepEqual(argsOf({ command: ['x'], args: [] }, image), ['x']);
  const none = { entrypoint: [''], cmd: ['c'] };
  assert.deepEqual(argsOf({}, none), ['c']);
  assert.deepEqual(argsOf({ args: ['mine'] }, none), ['mine']);
  assert.deepEqual(argsOf({}, { entrypoint: ['/ep'], cmd: [''] }), ['/ep', ''], 'an argument may be empty');
  for (const empty of [{ cmd: [''] }, { entrypoint: ['', 'x'] }, { entrypoint: [''] }])
    assert.throws(() => argsOf({}, empty), is('invalid'));
  assert.throws(() => argsOf({ command: [''] }, image), /begins with an empty word/);
  assert.equal(processOf({ ...containerSpec, workingDir: '' }, { ...image, workingDir: '' }, [], undefined).cwd, '/');
  assert.equal(processOf(containerSpec, { ...image, user: '' }, [], undefined).user, '');
});

test('processOf() refuses arguments and variables that no process can have, naming them, and accepts all others', () => {
  const planOf = (own: object, image: object = { cmd: ['x'] }) =>
    processOf({ ...containerSpec, ...own }, image, [], undefined);
  const most = 128 * 1024 - 1;
  const variable = (name: string, bytes: number) => ({ name, value: 'v'.repeat(bytes - name.length - 1) });
  planOf({ env: [variable('A', most)], args: ['x', 'y'.repeat(most)] });
  assert.throws(
    () => planOf({ env: [variable('A', most + 1)] }),
    /the variable A is too long \(E2BIG\).*131071 bytes, got 131072/,
  );
  assert.throws(() => planOf({ args: ['x', 'ü'.repeat(most / 2 + 1)] }), /argument 1 is too long \(E2BIG\)/);
  assert.throws(() => planOf({ env: [{ name: 'A', value: 'a\0b' }] }), /the variable A has a NUL byte/);
  const many = Array.from({ length: 16 }, (_, at) => variable(`V${at}`, 120_000));
  planOf({ env: many });
  assert.throws(
    () => planOf({ env: many, args: Array(20).fill('y'.repeat(10_000)) }),
    /arguments and variables are too long \(E2BIG\)/,
  );
  const little = Array.from({ length: 16_385 }, (_, at) => ({ name: `V${at}`, value: '' }));
  assert.equal(planOf({ env: little.slice(1) }).env.length, 16_384);
  assert.throws(() => planOf({ env: little }), /at most 16384 variables/);
  for (const workingDir of ['app', `/${'x'.repeat(5000)}`])
    assert.throws(() => planOf({}, { cmd: ['x'], workingDir }), /working directory must be an absolute path/);
  assert.throws(() => planOf({}, { cmd: ['x'], user: 'u'.repeat(300) }), /at most 256 characters, got 300/);
});

test('checkSandboxSpec() and checkContainerSpec() name fields that a guest does not support', () => {
  const pod = (change: object) => () => checkSandboxSpec('pod a/b', { ...sandboxSpec, ...change });
  pod({})();
  assert.throws(pod({ hostname: '' }), /hostname must have 1 to 64/);
  assert.throws(pod({ hostname: 'a\nb' }), /hostname.*got "\\"a\\\\nb\\""|hostname/);
  assert.throws(pod({ sysctls: { 'net/x': '1' } }), /sysctl must have a name with dots.*net\/x/);
  assert.throws(pod({ sysctls: { 'net.x': 'v'.repeat(5000) } }), /net\.x has at most 4096 characters, got 5000/);
  const dns = { policy: 'None', nameservers: ['1.1.1.1\nsearch x'], searches: [], options: [] };
  assert.throws(pod({ dns }), /DNS nameservers must be one word/);
  const hostnames = Array.from({ length: 256 }, () => 'h'.repeat(253));
  const hostAliases = Array.from({ length: 20 }, () => ({ ip: '1.1.1.1', hostnames }));
  assert.throws(pod({ hostAliases }), /hostAliases make \/etc\/hosts larger than 524288 bytes/);

  const container = (change: object) => () => checkContainerSpec({ ...containerSpec, ...change });
  container({})();
  const mount = (more: object) => ({
    mounts: [{ source: { kind: 'volume', name: 'v' }, mountPath: '/m', readOnly: false, ...more }],
  });
  assert.throws(container(mount({ mountPath: 'm' })), /a mount must be at an absolute path/);
  assert.throws(container(mount({ subPath: '' })), /sub-path of \/m must be relative/);
  assert.throws(container(mount({ subPath: 'x'.repeat(5000) })), /at most 4096 characters/);
  assert.throws(container({ terminationMessagePath: 'log' }), /the termination message must be at an absolute path/);
  assert.throws(
    container({ security: { ...security, maskedPaths: ['proc'] } }),
    /a masked path must be at an absolute/,
  );
  const groups = Array.from({ length: 5000 }, (_, at) => at);
  assert.throws(container({ security: { ...security, supplementalGroups: groups } }), /4096 supplemental groups, got/);
});

test('processOf() prefers the pod’s settings to the image’s', () => {
  const image = { cmd: ['x'], env: ['A=1', 'B=2=3', 'broken'], workingDir: '/w', user: 'nobody' };
  const own = { ...containerSpec, env: [{ name: 'A', value: 'mine' }] };
  const plan = processOf(own, image, [], 7);
  assert.deepEqual(plan.env, ['A=mine', 'B=2=3']);
  assert.equal(plan.cwd, '/w');
  assert.equal(plan.user, 'nobody');
  assert.equal(plan.fsGroup, 7);
  assert.equal(processOf({ ...own, security: { ...security, runAsUser: 5 } }, image, [], 7).user, '5');
});

test('processOf() refuses root with runAsNonRoot, whether pod or image asks for it', () => {
  const runAs = (own: object, user?: string) =>
    processOf(
      { ...containerSpec, security: { ...security, runAsNonRoot: true, ...own } },
      { cmd: ['x'], ...(user === undefined ? {} : { user }) },
      [],
      1,
    );
  for (const user of [undefined, '', '0', 'root', '0:5']) assert.throws(() => runAs({}, user), is('invalid'));
  assert.throws(() => runAs({ runAsUser: 0 }, 'nobody'), is('invalid'));
  assert.equal(runAs({ runAsUser: 5 }, 'root').user, '5');
  assert.equal(runAs({}, 'nobody').requireNonRoot, true);
});

test('stopSignalOf() understands names, numbers and real-time signals', () => {
  const cases = {
    ...{ SIGQUIT: 3, quit: 3, '9': 9, nonsense: 15, '': 15, '99': 15 },
    ...{ 'SIGRTMIN+3': 37, RTMIN: 34, 'SIGRTMIN+99': 64, 'rtmax-1': 63, SIGRTMAX: 64, 'SIGRTMIN-1': 15 },
  };
  for (const [stopSignal, number] of Object.entries(cases)) assert.equal(stopSignalOf({ stopSignal }), number);
  assert.equal(stopSignalOf({}), 15);
});

const capabilities = (addCapabilities: string[], dropCapabilities: string[]) =>
  capabilitiesOf({ ...security, addCapabilities, dropCapabilities });

test('ambientOf() keeps held capabilities that are not dropped, and adds requested ones', () => {
  const ambient = (ambientCapabilities: string[], dropCapabilities: string[] = []) => {
    const wanted = { ...security, ambientCapabilities, dropCapabilities };
    return ambientOf(wanted, capabilitiesOf(wanted));
  };
  assert.deepEqual(ambientOf(security, defaultCapabilities), []);
  assert.deepEqual(ambient(['sys_time', 'CAP_CHOWN']), ['CAP_CHOWN', 'CAP_SYS_TIME']);
  assert.deepEqual(ambient(['sys_time'], ['ALL']), ['CAP_SYS_TIME']);
  assert.deepEqual(ambient(['sys_time'], ['SYS_TIME']), []);
  assert.deepEqual(
    ambient(['ALL'], ['SYS_TIME']),
    allCapabilities.filter((name) => name !== 'CAP_SYS_TIME'),
  );
  assert.throws(() => ambient(['CAP_FLY']), is('invalid'));
});

test('capabilitiesOf() adds and drops capabilities, and refuses unknown names', () => {
  assert.throws(() => capabilities(['CAP_FLY'], []), is('invalid'));
  assert.deepEqual(capabilities([], []), [...defaultCapabilities].sort());
  assert.deepEqual(capabilities(['net_bind_service'], ['ALL']), ['CAP_NET_BIND_SERVICE']);
  assert.deepEqual(capabilities(['ALL'], []), allCapabilities);
  assert.ok(!capabilities(['ALL'], ['SYS_ADMIN']).includes('CAP_SYS_ADMIN'));
  assert.deepEqual(capabilitiesOf({ ...security, privileged: true }), allCapabilities);
});

test('RuntimeDefault allows no call that its documentation lists as blocked', () => {
  const blocked = `acct add_key bpf clock_adjtime clock_settime delete_module finit_module get_mempolicy init_module
    ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_pages open_by_handle_at
    perf_event_open pivot_root quotactl reboot request_key set_mempolicy setns settimeofday swapon swapoff sysfs umount2
    unshare uselib userfaultfd ustat io_uring_setup io_uring_enter io_uring_register`.split(/\s+/);
  for (const name of blocked) assert.ok(!allowedSyscalls.includes(name), name);
  assert.equal(new Set(allowedSyscalls).size, allowedSyscalls.length);
  for (const name of Object.values(syscallsByCapability).flat()) assert.ok(!allowedSyscalls.includes(name), name);
});

const rulesOf = (held: readonly string[]) =>
  runtimeDefault(held)['syscalls'] as { names: string[]; action: string; args?: unknown }[];

const plain = (capabilities: readonly string[], action: string) =>
  rulesOf(capabilities)
    .filter((rule) => rule.action === action && rule.args === undefined)
    .flatMap((rule) => rule.names);

test('RuntimeDefault allows a call with the capability that guards it, and has one rule per call', () => {
  assert.ok(!plain(defaultCapabilities, 'SCMP_ACT_ALLOW').includes('mount'));
  assert.ok(plain(['CAP_SYS_ADMIN'], 'SCMP_ACT_ALLOW').includes('mount'));
  assert.ok(plain(defaultCapabilities, 'SCMP_ACT_ALLOW').includes('chroot'));
  for (const held of [[], defaultCapabilities, allCapabilities]) {
    const allowed = new Set(plain(held, 'SCMP_ACT_ALLOW'));
    for (const name of plain(held, 'SCMP_ACT_ERRNO')) assert.ok(!allowed.has(name), name);
  }
});

const localhost = (profile: unknown) => seccompOf({ ...security, seccomp: { kind: 'localhost', profile } }, [], {});

test('seccompOf() uses a localhost profile unchanged, and refuses an invalid one', () => {
  assert.throws(() => localhost('text'), is('invalid'));
  assert.throws(() => localhost([]), is('invalid'));
  assert.deepEqual(localhost({ defaultAction: 'SCMP_ACT_ALLOW' }), { defaultAction: 'SCMP_ACT_ALLOW' });
  assert.equal(seccompOf({ ...security, privileged: true }, [], {}), null);
});

test('resolvConfOf() merges by policy, within the kubelet’s limits', () => {
  const network = { nameservers: ['10.0.0.1'], searches: ['lan'], options: ['ndots:1'] };
  const dns = { nameservers: ['1.1.1.1', '2.2.2.2', '3.3.3.3'], searches: ['own'], options: ['ndots:5', 'edns0'] };
  assert.equal(
    resolvConfOf({ dns: { policy: 'ClusterFirst', ...dns } }, network),
    'nameserver 10.0.0.1\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nsearch lan own\noptions ndots:5 edns0\n',
  );
  assert.match(resolvConfOf({ dns: { policy: 'None', ...dns } }, network), /^nameserver 1\.1\.1\.1\n/);
});

test('etcHostsOf() lists the pod’s addresses and its aliases', () => {
  const spec = { hostname: 'web', hostAliases: [{ ip: '10.9.9.9', hostnames: ['db', 'db.lan'] }] };
  const text = etcHostsOf(spec, ['10.1.0.5/24']);
  assert.match(text, /^10\.1\.0\.5\tweb$/m);
  assert.match(text, /^10\.9\.9\.9\tdb\tdb\.lan$/m);
  assert.match(etcHostsOf(spec, []), /^127\.0\.0\.1\tweb$/m);
  const names = ['web.peers.shop.svc.cluster.local', 'web'];
  assert.match(
    etcHostsOf({ ...spec, names }, ['fd00::5/64']),
    /^fd00::5\tweb\.peers\.shop\.svc\.cluster\.local\tweb$/m,
  );
  assert.deepEqual(plainAddresses(['fd00::5/64', '10.1.0.5/24']), ['10.1.0.5', 'fd00::5']);
});

test('names and user ids have one holder at a time', () => {
  const names = createNames();
  const held = names.reserve(sandboxSpec);
  assert.throws(() => names.reserve(sandboxSpec), is('alreadyExists'));
  names.reserve({ ...sandboxSpec, namespace: 'other' });
  names.reserve({ ...sandboxSpec, attempt: 0 });
  names.reserve({ ...sandboxSpec, attempt: 1 });
  names.reserve({ ...sandboxSpec, attempt: 0, uid: 'another' });
  assert.throws(() => names.reserve({ ...sandboxSpec, attempt: 1 }), is('alreadyExists'));
  held[Symbol.dispose]();
  names.reserve(sandboxSpec);

  const ids = createUserIds({ first: 100, count: 2 });
  const first = ids.take();
  assert.deepEqual([first.uid, ids.take().uid], [100, 101]);
  assert.throws(() => ids.take(), is('exhausted'));
  first[Symbol.dispose]();
  assert.equal(ids.take().uid, 100);
});

test('the inbox applies events before requests, one at a time', async () => {
  const inbox = createInbox((error) => assert.fail(String(error)));
  const order: string[] = [];
  const asked = inbox.ask(() => order.push('asked'));
  inbox.tell(() => order.push('told'));
  inbox.tell(() => order.push('told again'));
  await asked;
  assert.deepEqual(order, ['told', 'told again', 'asked']);
  await assert.rejects(
    inbox.ask(() => {
      throw new Error('no');
    }),
    /no/,
  );
});

test('the inbox survives a bug in one event, and refuses too many requests', async () => {
  const bugs: unknown[] = [];
  const inbox = createInbox((error) => bugs.push(error));
  inbox.tell(() => {
    throw new Error('bug');
  });
  const asked = Array.from({ length: maxWaitingRequests + 1 }, () => inbox.ask(() => {}));
  await assert.rejects(asked.at(-1) ?? Promise.resolve(), is('exhausted'));
  await Promise.all(asked.slice(0, -1));
  assert.equal(bugs.length, 1);
});

test('a sandbox changes state only as its table says, for any order of events', () => {
  const states = Object.keys(sandboxMoves) as SandboxState[];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...states), { maxLength: 20 }), (wanted) => {
      const moves = createMoves<SandboxState>('s', sandboxMoves, 'creating');
      for (const next of wanted) {
        const before = moves.state;
        const isLegal = (sandboxMoves[before] as readonly SandboxState[]).includes(next);
        if (isLegal) moves.moveTo(next, 'test');
        else
          assert.throws(
            () => moves.moveTo(next, 'test'),
            (error) => kindOf(error) === 'internal',
          );
        assert.equal(moves.state, isLegal ? next : before);
      }
    }),
  );
});
