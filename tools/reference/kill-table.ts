import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { code, page, table } from './markdown.ts';

interface Row {
  readonly component: string;
  readonly moment: string;
  readonly fault: string;
  readonly promise: string;
  /** File of the test, and its title or the constant part of it. */
  readonly test: readonly [file: string, title: string];
}

const adopt = 'test/vm/adopt.test.ts';
const adoptFaults = 'test/vm/adopt-faults.test.ts';
const adoptRun = 'test/vm/adopt-run.test.ts';
const recover = 'src/admin/pods/recover.test.ts';
const leftAlone = 'test/vm/left-alone.test.ts';
const takeOver = 'src/sandbox/adoption/take-over.test.ts';
const replaced = 'test/vm/replaced-parts.test.ts';
const leaks = 'test/vm/leaks.test.ts';
const interrupts = 'test/vm/cli-interrupts.test.ts';
const short = 'test/vm/short-of-descriptors.test.ts';
const database = 'test/vm/database.test.ts';
const clockJumps = 'test/vm/clock-jumps.test.ts';
const leaksOfNetwork = 'test/vm/leaks-network.test.ts';
const setUpEnds = 'test/vm/set-up-ends.test.ts';
const powerCut = 'test/vm/power-cut.test.ts';

/** Faults of a component at a moment, each with the promised result and the test that shows it. */
const rows: readonly Row[] = [
  {
    component: 'daemon',
    moment: 'pods run and write',
    fault: 'KILL, TERM',
    promise: 'pods continue; the next daemon takes them over, and no output is lost or repeated',
    test: [adopt, 'processes, connections, addresses, exits and output continue'],
  },
  {
    component: 'node of `podvm run`',
    moment: 'pods run and write',
    fault: 'KILL, TERM',
    promise:
      'pods continue, and their clients learn how to continue; the next command starts a node that takes them over',
    test: [adoptRun, 'of it: in the same machine, with logs, port, volume, probes and restarts'],
  },
  {
    component: 'node of `podvm run`',
    moment: 'it is replaced by another build',
    fault: 'KILL, TERM',
    promise: 'the same, forwards and back',
    test: [adoptRun, 'continue in a node of another build, and back'],
  },
  {
    component: 'node of `podvm run`',
    moment: 'a pod is being stopped',
    fault: 'end of the process',
    promise: 'the next one continues the stop, within the same grace time',
    test: [recover, 'continues to be stopped'],
  },
  {
    component: 'host',
    moment: 'pods of `podvm run` run',
    fault: 'reboot',
    promise: 'a daemon starts those with `restartPolicy: Always` again, once',
    test: [recover, 'a pod with restartPolicy Always is started again by a daemon, once'],
  },
  {
    component: 'daemon',
    moment: 'containers use volumes',
    fault: 'KILL',
    promise: 'volumes keep working, and are released at the end',
    test: [adopt, 'volumes of all kinds keep working, and are released at the end'],
  },
  {
    component: 'daemon',
    moment: 'a container is killed for lack of memory meanwhile',
    fault: 'KILL',
    promise: 'the OOM kill is reported; no secret is on disk',
    test: [adopt, 'reports an OOM kill of that time, and has written no secret to disk'],
  },
  {
    component: 'daemon',
    moment: 'a VMM ends meanwhile',
    fault: 'KILL',
    promise: 'that pod fails with the reason; the others are taken over',
    test: [adopt, 'takes over all pods at once; one whose machine has ended fails with the reason'],
  },
  {
    component: 'daemon',
    moment: 'a guest hangs meanwhile',
    fault: 'KILL',
    promise: 'that pod fails with the reason within 30 s; the next daemon serves then',
    test: [replaced, 'a guest that hangs while no daemon runs does not keep the next one from serving'],
  },
  {
    component: 'daemon, then the power of the host',
    moment: 'databases write to shares and block volumes',
    fault: 'KILL, then a power cut',
    promise: 'no committed row is lost, and every page is whole (`pg_amcheck`, checksums of pages, `integrity_check`)',
    test: [database, 'lose no committed row when their daemon is killed and replaced, and then the host loses power'],
  },
  {
    component: 'daemon',
    moment: 'pods run and write',
    fault: 'replaced by another build, and back',
    promise: 'nothing restarts, no line is lost, new pods get the new parts',
    test: ['test/vm/another-build.test.ts', 'nothing restarts, no line is lost, and new pods have the new parts'],
  },
  {
    component: 'daemon',
    moment: 'pods run and write, under systemd',
    fault: 'restart, stop, KILL, upgrade (`npm run systemd`)',
    promise: 'pods continue, no line is lost',
    test: ['test/systemd/main.ts', 'an upgrade: other files, and try-restart'],
  },
  {
    component: 'daemon',
    moment: 'a volume, link or server of a pod is lost meanwhile',
    fault: 'KILL',
    promise: 'the next daemon notices the loss',
    test: [replaced, 'a loss while no daemon ran is detected by the next one'],
  },
  {
    component: 'daemon',
    moment: 'adopting',
    fault: 'KILL',
    promise: 'the next one takes the pods over; no line is lost',
    test: [adoptFaults, 'and is killed meanwhile leaves them to the next one, which loses no line'],
  },
  {
    component: 'disk of the host',
    moment: 'adopting',
    fault: 'ENOSPC',
    promise: 'pods are taken over, and can be stopped and removed; new ones are refused until there is room',
    test: [adoptFaults, 'on a full disk takes them over, and they can be stopped and removed'],
  },
  {
    component: 'daemon',
    moment: 'a sandbox is not yet known to its client',
    fault: 'KILL',
    promise: 'the next daemon removes the sandbox',
    test: ['src/cri/recover-pods.test.ts', 'a sandbox that no client knows is removed by the next daemon'],
  },
  {
    component: 'daemon',
    moment: 'any',
    fault: 'unhandled rejection, uncaught exception',
    promise: 'the first is logged; the second ends the daemon, and pods continue',
    test: [
      'src/daemon/node/outlive-rejections.test.ts',
      'an unhandled rejection is logged; an uncaught exception is logged',
    ],
  },
  {
    component: 'daemon',
    moment: 'pods run and write',
    fault: 'STOP for half a minute',
    promise: 'pods continue; no line is lost',
    test: [adoptFaults, 'and is then stopped for half a minute fails none of them, and loses no line'],
  },
  {
    component: 'daemon',
    moment: 'pods run',
    fault: 'STOP',
    promise: 'pods continue, and none is ended because it was not heard meanwhile',
    test: ['src/link/heartbeat.test.ts', 'is not given up earlier because the host itself was stopped'],
  },
  {
    component: 'daemon',
    moment: 'any',
    fault: 'EMFILE',
    promise: 'pods can be stopped and removed; new ones are refused until there is room',
    test: [
      short,
      'continues: pods are stopped and removed, new ones are refused, and everything works again afterwards',
    ],
  },
  {
    component: 'daemon',
    moment: 'a process is looked up',
    fault: 'EMFILE',
    promise: 'the process is not considered ended',
    test: [
      'src/host/process/process-identity.test.ts',
      'a process that cannot be looked up for lack of descriptors is not considered',
    ],
  },
  {
    component: 'daemon',
    moment: 'a machine of the pool is made',
    fault: 'KILL, TERM',
    promise: 'nothing is left after TERM, nor after the start of the next daemon',
    test: ['test/vm/warm-node.test.ts', 'none outlives it, whenever it ends'],
  },
  {
    component: 'daemon',
    moment: 'a template of newer parts is made',
    fault: 'TERM',
    promise: 'nothing is left',
    test: ['src/sandbox/sandboxes.test.ts', 'an upgrade that is cancelled while a template is made leaves no machine'],
  },
  {
    component: 'daemon',
    moment: 'pods run and write, adopting',
    fault: "the host's date jumps by an hour, forwards and back",
    promise: 'pods continue; logs and ends have the new date, and no duration changes; records may be from the future',
    test: [clockJumps, 'pods continue, and events have dates, even if records are from the future'],
  },
  {
    component: 'daemon',
    moment: '`podvm run`: restarts, deadlines, probes',
    fault: "the host's date jumps by an hour, forwards and back",
    promise: 'restart delays, deadlines and grace times take as long as before',
    test: ['src/pod/start-pod-restarts.test.ts', 'waits as long for restarts and deadlines when the date jumps'],
  },
  {
    component: 'records',
    moment: 'adopting',
    fault: 'a record of a newer podvm',
    promise: 'the pod runs on, is listed with the reason, and can be ended',
    test: [
      takeOver,
      'a sandbox with a record of a newer podvm is left alone, listed with the reason, and taken over by that podvm',
    ],
  },
  {
    component: 'records',
    moment: 'no daemon runs',
    fault: 'a record of a newer podvm',
    promise: 'the pod is listed as orphaned; `podvm stop --orphaned` ends it, and nothing is left',
    test: [leftAlone, 'are listed as orphaned without a daemon, and ended as such'],
  },
  {
    component: 'agent',
    moment: 'adopting',
    fault: 'it speaks no version that the daemon can take over',
    promise: 'the same',
    test: [leftAlone, 'run on, are listed with the reason, and end when their client or an operator wants it'],
  },
  {
    component: 'records',
    moment: 'adopting',
    fault: 'a torn record (power cut)',
    promise: 'its machine is found and ended',
    test: [takeOver, 'a sandbox whose record is damaged, as by a power cut, is swept'],
  },
  {
    component: 'VMM',
    moment: 'creating',
    fault: 'KILL',
    promise: 'the start fails with the reason; nothing is left',
    test: [leaks, 'because its VMM is killed before, while and after its guest starts leaves nothing'],
  },
  {
    component: 'VMM',
    moment: 'running',
    fault: 'KILL',
    promise: 'the pod fails with the reason; nothing is left but its logs',
    test: ['test/vm/sandbox.test.ts', 'a killed machine fails its sandbox and leaves nothing but its logs'],
  },
  {
    component: 'VMM',
    moment: 'removing',
    fault: 'STOP',
    promise: 'the pod is removed within 40 s; no other is delayed',
    test: ['test/vm/hostile-guest.test.ts', 'whose VMM hangs delays no other, and can be removed'],
  },
  {
    component: 'VMM',
    moment: 'running, stopping a container',
    fault: 'STOP',
    promise: 'found within 30 s; the pod fails with the reason, the call returns, the next attempt runs',
    test: [replaced, 'a stopped machine is detected within 30 s, its containers end, and the next attempt runs'],
  },
  {
    component: 'containers',
    moment: 'a database writes to a scratch disk',
    fault: 'KILL',
    promise: 'the same for the next container of the pod',
    test: [database, 'lose no committed row when their daemon is killed and replaced, and then the host loses power'],
  },
  {
    component: 'containers, VMM, power of the host',
    moment: 'databases write to all kinds of volumes, also after a takeover',
    fault: 'KILL, power cut (`npm run chaos -- --databases`)',
    promise: 'the same, except that a scratch disk ends with its VMM',
    test: ['test/chaos/databases.ts', 'no row lost'],
  },
  {
    component: 'VMM',
    moment: 'running',
    fault: 'taken over by an attacker',
    promise: 'it gains nothing beside its pod',
    test: ['test/vm/fallen-vmm.test.ts', 'cannot read, change, reach, signal, trace or become anything else'],
  },
  {
    component: 'guest kernel',
    moment: 'running',
    fault: 'hang after a panic',
    promise: 'found as soon as it has had the time to answer; the pod fails with the reason',
    test: [replaced, 'a hanging guest is detected as soon as its machine has had the time to answer'],
  },
  {
    component: 'guest kernel',
    moment: 'creating',
    fault: 'ends while it boots',
    promise: 'the start fails at once; nothing is left',
    test: [leaks, 'because its guest dies while it boots leaves nothing, and does not wait for it'],
  },
  {
    component: 'agent',
    moment: 'creating',
    fault: 'does not answer',
    promise: 'the start fails with what the guest said; nothing is left',
    test: [leaks, 'because its agent is late leaves nothing, and reports the guest’s last lines'],
  },
  {
    component: 'crun',
    moment: 'creating a container',
    fault: 'KILL, no answer',
    promise: 'the container is not created, with the reason',
    test: ['src/agent/container/crun.test.ts', 'create() ends a crun that hangs'],
  },
  {
    component: 'file server',
    moment: 'containers use its volume',
    fault: 'KILL',
    promise: 'these containers end with the reason; their next attempts have the volume',
    test: [replaced, 'a killed file server: containers that mount its volume end, and their next attempts have it'],
  },
  {
    component: 'network',
    moment: 'running',
    fault: 'bridge or link deleted, link taken from the bridge',
    promise: 'put back within 10 s; open connections continue',
    test: [replaced, '${what} is restored'],
  },
  {
    component: 'jail of a machine',
    moment: 'running',
    fault: 'KILL',
    promise: 'the pod continues',
    test: [replaced, 'killed jails of a machine and its file server: the pod continues'],
  },
  {
    component: 'jail of a file server',
    moment: 'running',
    fault: 'KILL',
    promise: 'the server continues',
    test: ['test/vm/file-servers.test.ts', 'a file server continues when its bubblewrap is killed alone'],
  },
  {
    component: 'file server',
    moment: 'containers use its volume',
    fault: 'ENOSPC',
    promise: 'the container gets the error, and continues when there is room',
    test: ['test/vm/full-disks.test.ts', 'on the host: container and pod get the error'],
  },
  {
    component: 'file server',
    moment: 'containers use its volume',
    fault: 'STOP',
    promise: 'their accesses wait, and continue with it; containers and pod can be stopped and removed meanwhile',
    test: [replaced, 'a stopped file server: accesses wait and continue, and its containers and pod can be ended'],
  },
  {
    component: 'file server',
    moment: 'containers use its volume',
    fault: 'STOP for a minute',
    promise: 'it is ended, as by KILL',
    test: ['src/sandbox/volume/stopped-server.test.ts', 'ends one that stays stopped'],
  },
  {
    component: 'network',
    moment: 'running',
    fault: 'rules of the pod flushed',
    promise: 'put back within 10 s',
    test: [replaced, 'flushed rules are restored'],
  },
  {
    component: 'network',
    moment: 'running',
    fault: '`nft flush ruleset`',
    promise: 'every rule is put back within 10 s',
    test: [replaced, 'every rule is restored, and the pod stays ready'],
  },
  {
    component: 'network',
    moment: 'running',
    fault: "queues and filters in the pod's netns deleted",
    promise: 'put back within 10 s',
    test: [replaced, 'removed queues and filters in its netns are restored'],
  },
  {
    component: 'network',
    moment: 'running, without traffic',
    fault: 'queues and filters in the netns of many pods deleted',
    promise: 'all are put back by one check, every 8 s',
    test: ['test/vm/lost-queues.test.ts', 'that were removed are all restored by one check'],
  },
  {
    component: 'CNI plugin',
    moment: 'creating',
    fault: 'hangs (STOP)',
    promise: 'ended at its deadline, or at once when the caller gives up; nothing is left',
    test: [leaksOfNetwork, 'is cancelled while it hangs leaves nothing, at once'],
  },
  {
    component: 'CNI plugin',
    moment: 'creating',
    fault: 'is missing, dies, or prints something else',
    promise: 'the start fails with the reason; nothing is left',
    test: [leaksOfNetwork, 'is reported, and leaves nothing'],
  },
  {
    component: 'CNI plugin',
    moment: 'removing',
    fault: 'fails, also before the daemon ends',
    promise: 'its record stays, and it is asked again, also by the next daemon',
    test: [leaksOfNetwork, 'fails at DEL is called again by the next process'],
  },
  {
    component: 'network',
    moment: 'running',
    fault: 'tap deleted',
    promise: 'the pod becomes not ready, with the reason',
    test: [replaced, 'a deleted tap makes the pod not ready, with the reason'],
  },
  {
    component: 'addresses',
    moment: 'starting',
    fault: 'a torn reservation (power cut)',
    promise: 'the file is written again for a pod that has the address; otherwise the address is free',
    test: [
      'src/network/host-network.test.ts',
      'collect() frees addresses whose holder has no record, or whose file is damaged',
    ],
  },
  {
    component: 'any part of a start',
    moment: 'creating',
    fault: 'each call fails once',
    promise: 'the start fails; nothing is left',
    test: [leaks, 'because a part fails at any of its calls leaves nothing'],
  },
  {
    component: 'disk of a machine',
    moment: 'running',
    fault: 'ENOSPC',
    promise: 'the container gets the error, and continues when there is room',
    test: ['test/vm/full-disks.test.ts', 'in the machine: the container gets ENOSPC'],
  },
  {
    component: 'disk of the host',
    moment: 'running',
    fault: 'ENOSPC',
    promise: 'container and pod get the error; neighbours continue',
    test: ['test/vm/full-disks.test.ts', 'on the host: container and pod get the error'],
  },
  {
    component: 'disk of the host',
    moment: 'writing a log',
    fault: 'ENOSPC',
    promise: 'the log continues when there is room, and says how many bytes are missing',
    test: [
      'src/sandbox/log/log.test.ts',
      'a log on a full disk continues when there is space, and records what is missing',
    ],
  },
  {
    component: 'disk of the host',
    moment: 'creating',
    fault: 'ENOSPC',
    promise: 'the start is refused with the number of bytes that are missing',
    test: ['test/vm/bad-input.test.ts', 'a full disk: how much is missing, and what uses it'],
  },
  {
    component: 'disk of the host',
    moment: 'pulling',
    fault: 'ENOSPC',
    promise: 'the pull fails with the reason; nothing is left',
    test: ['test/vm/image-registry.test.ts', 'reports a full disk, and leaves nothing on it'],
  },
  {
    component: 'maker of the template',
    moment: 'freezing',
    fault: 'INT',
    promise: 'nothing is left',
    test: [interrupts, 'leaves nothing while a template is made'],
  },
  {
    component: 'maker of the template',
    moment: 'freezing',
    fault: 'ENOSPC, no answer',
    promise: 'machines boot without a template, which is tried again after a minute',
    test: ['src/sandbox/spec/template-choice.test.ts', 'boots without a template for a while after making one failed'],
  },
  {
    component: 'maker of the template',
    moment: 'booting',
    fault: 'ENOSPC',
    promise: 'the pod that waits boots cold; the reason names the full file system',
    test: [
      'test/vm/templates.test.ts',
      'one that does not fit on the disk names the disk, and its pod boots without it',
    ],
  },
  {
    component: 'maker of the template',
    moment: 'booting',
    fault: 'KILL',
    promise: 'the pod that waits boots cold, and nothing is left',
    test: ['test/vm/templates.test.ts', 'fails by its deadline, and pods boot without it'],
  },
  {
    component: 'maker of the template',
    moment: 'booting',
    fault: 'STOP',
    promise: 'the same, within three minutes',
    test: ['test/vm/templates.test.ts', 'fails by its deadline, and pods boot without it'],
  },
  {
    component: 'template',
    moment: 'pods run',
    fault: 'a torn file',
    promise: 'their machines end with the reason; the template is made again',
    test: ['test/vm/templates.test.ts', 'a truncated one ends the machines that run from it'],
  },
  {
    component: 'import worker',
    moment: 'importing',
    fault: 'KILL',
    promise: 'the pull fails with the reason, nothing is left, and the next one works',
    test: ['test/vm/import-worker.test.ts', 'fails the import at its deadline at the latest'],
  },
  {
    component: 'import worker',
    moment: 'importing',
    fault: 'STOP',
    promise: 'the same at its deadline of 30 minutes',
    test: ['test/vm/import-worker.test.ts', 'fails the import at its deadline at the latest'],
  },
  {
    component: 'import worker',
    moment: 'importing',
    fault: 'INT',
    promise: 'nothing is left',
    test: [interrupts, 'leaves nothing while an image is imported'],
  },
  {
    component: 'import worker',
    moment: 'importing, and the daemon gets KILL',
    fault: 'KILL',
    promise: 'no process and no file is left',
    test: ['test/vm/image-attacks.test.ts', 'leaves no reader, and nothing on the disk, when podvm is killed'],
  },
  {
    component: 'skopeo',
    moment: 'pulling',
    fault: 'KILL',
    promise: 'the pull fails with the reason',
    test: ['test/vm/image-registry.test.ts', 'reports that skopeo was killed, alone or with its jail'],
  },
  {
    component: 'images',
    moment: 'starting, creating',
    fault: 'torn or damaged files (power cut)',
    promise: 'the index is made again from the records; a damaged image is fetched again by its digest',
    test: ['src/image/store/damaged-images.test.ts', 'readRecords() makes a damaged or missing index from the images'],
  },
  {
    component: '`podvm run`',
    moment: 'any',
    fault: 'INT',
    promise: 'nothing is left',
    test: [interrupts, 'leaves nothing at any other moment, up to a running container with --rm'],
  },
  {
    component: '`podvm run`',
    moment: 'running',
    fault: 'KILL',
    promise: 'its machine is visible, and can be ended',
    test: ['test/vm/cli-ends.test.ts', 'a killed podvm leaves its machine: ps and doctor report it'],
  },
  {
    component: 'set-up',
    moment: 'each of its parts',
    fault: 'TERM',
    promise: 'nothing half-made is left, and no process',
    test: [setUpEnds, 'and no process'],
  },
  {
    component: 'set-up',
    moment: 'making parts',
    fault: 'KILL',
    promise: 'no process is left, and the next set-up removes what is half-made',
    test: [setUpEnds, 'by SIGKILL leaves no process, and files only until the next one, which completes it'],
  },
  {
    component: 'set-up',
    moment: 'making parts',
    fault: 'ENOSPC',
    promise: 'it fails with the reason and a fix; nothing half-made is left',
    test: [setUpEnds, 'by a full disk names the reason, and leaves nothing half-made'],
  },
  {
    component: 'set-up',
    moment: 'making parts',
    fault: 'EMFILE',
    promise: 'the same',
    test: [setUpEnds, 'by a full table of descriptors says what to do, and leaves nothing half-made'],
  },
  {
    component: 'set-up',
    moment: 'parts were made',
    fault: 'power cut',
    promise: 'a pod runs afterwards',
    test: [powerCut, 'when set-up had just made parts'],
  },
  {
    component: 'images, template',
    moment: 'they were made',
    fault: 'power cut',
    promise: 'the same',
    test: [powerCut, 'when an image and a template had just been made'],
  },
  {
    component: 'set-up',
    moment: 'its records are read',
    fault: 'torn records (power cut)',
    promise: 'they are made again from the parts that exist',
    test: ['test/vm/bad-input.test.ts', 'invalid records of set-up are made again from the existing parts'],
  },
  {
    component: 'all of the above',
    moment: 'pods run and write',
    fault: 'by chance (`npm run chaos`)',
    promise: 'pods recover, no log lacks a line, nothing is left',
    test: ['test/chaos/main.ts', 'no log'],
  },
];

export async function killTablePage(): Promise<string> {
  for (const { test } of rows) await assertTested(...test);
  return await page(
    'Kill table',
    '`tools/reference/kill-table.ts`',
    'Faults, the moments at which tests cause them, and what is promised ([reliability](../reliability.md)). This page ' +
      'cannot be printed without the tests that it names.',
    table(
      ['component', 'moment', 'fault', 'promise', 'test'],
      rows.map(({ component, moment, fault, promise, test: [file] }) => [
        component,
        moment,
        fault,
        promise,
        code(file),
      ]),
    ),
    'Not tested: faults while a CNI plugin of another vendor runs; a full descriptor table of an import worker or a CNI plugin; a ' +
      'jump of the date while set-up or an import runs.',
  );
}

async function assertTested(file: string, title: string): Promise<void> {
  const text = await readFile(join(import.meta.dirname, '../..', file), 'utf8');
  if (!text.includes(title)) throw new Error(`${file} has no test "${title}"`);
}
