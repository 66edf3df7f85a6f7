import { PodvmError } from '#base/errors.ts';
import { capabilitiesOf } from '../container/capabilities.ts';
import { maskedPaths, readonlyPaths } from '../container/create-container.ts';
import { linkImage, unlinkImage } from '../volume/image-disks.ts';
import { scratchSerial } from '../volume/volume-disks.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Params, Welcome } from '#wire/messages.ts';
import { openOutputStream } from '../container/open-stream.ts';
import type { MachineContext, MachineMade } from './machine-steps.ts';
import type { ContainerSecurity } from '../spec/container-security.ts';
import { seccompOf } from '../container/seccomp.ts';

/** Image of the container that exercises a machine; made without a registry. */
export const exerciseImage = 'localhost/podvm/base:latest';

const serial = 'exercise';
const id = 'exercise';

/**
 * Uses a machine as a pod would: addresses, an image, a container from creation to end, an exec. The guest's kernel and,
 * when emulated, its code translator are slow the first time, which a pod should not wait for. Leaves nothing else behind.
 * Errors: those of machine, agent and image.
 */
export async function exercise(
  { directory, machine, guest, attachment }: Pick<MachineMade, 'directory' | 'machine' | 'guest' | 'attachment'>,
  { parts, surroundings }: MachineContext,
  signal: AbortSignal,
): Promise<void> {
  await guest.call('configure', configuration(surroundings), signal);
  await guest.call('connect', connection(attachment.tap?.mac), signal);
  await using image = await parts.images.hold(exerciseImage, 'IfNotPresent', signal);
  await machine.attachDisk(await linkImage(image, directory.machinePath, serial), signal);
  await guest.call('attachDisk', { serial, fileSystem: 'erofs', readOnly: true }, signal);
  await runContainer(guest, signal);
  await guest.call('detachDisk', { serial }, signal);
  await machine.detachDisk(serial, signal);
  await unlinkImage(directory.machinePath, serial);
  await guest.call('stats', {}, signal);
  await guest.call('connect', connection(undefined), signal); // takes back the addresses, which takes a pod's start as long
}

async function runContainer(guest: MachineMade['guest'], signal: AbortSignal): Promise<void> {
  const streams = [openOutputStream(guest), openOutputStream(guest)] as const;
  const execStreams = [openOutputStream(guest), openOutputStream(guest)] as const;
  const ended = [...streams, ...execStreams].map(
    (stream) =>
      new Promise<void>((resolve) => {
        stream.once('end', () => resolve());
        stream.once('close', () => resolve());
        stream.resume();
      }),
  );
  try {
    await guest.call('createContainer', containerOf(guest.welcome, streams[0].id, streams[1].id), signal);
    await guest.call('startContainer', { id }, signal);
    const stdio = { stdin: 0, stdout: execStreams[0].id, stderr: execStreams[1].id };
    await guest.call('startExec', { containerId: id, execId: 'exec', args: ['true'], tty: false, stdio }, signal);
    await guest.call('signalContainer', { id, signal: 9 }, signal);
    await Promise.race([Promise.all(ended), failWhenAborted(signal)]);
  } finally {
    for (const stream of [...streams, ...execStreams]) stream.destroy();
    await guest.call('removeContainer', { id }, signal);
  }
}

/** A temporary identity, which the pod's replaces. */
function configuration(surroundings: MachineContext['surroundings']): Params<'configure'> {
  return {
    hostname: 'spare',
    realtimeMs: surroundings.nowMs(),
    entropy: Buffer.from(surroundings.randomBytes(64)).toString('base64'),
    machineId: Buffer.from(surroundings.randomBytes(16)).toString('hex'),
    sharePidNamespace: false,
  };
}

/** Documentation addresses that lead nowhere (RFC 5737, 3849); without a MAC address, none. */
function connection(mac: string | undefined): Params<'connect'> {
  const interfaces = (address: string) => [
    { name: 'eth0', mac: address, mtu: 1500, addresses: ['192.0.2.1/30', '2001:db8::1/64'] },
  ];
  const routes = [
    { destination: '0.0.0.0/0', gateway: '192.0.2.2' },
    { destination: '::/0', gateway: '2001:db8::2' },
  ];
  return {
    etcHosts: '127.0.0.1 localhost\n',
    resolvConf: '',
    sysctls: {},
    network: mac === undefined ? { interfaces: [], routes: [] } : { interfaces: interfaces(mac), routes },
    resources: {},
  };
}

/** The security of a container without special requests: its filters and paths are what most pods wait for. */
const security: ContainerSecurity = {
  privileged: false,
  runAsNonRoot: false,
  supplementalGroups: [],
  readOnlyRootFilesystem: false,
  allowPrivilegeEscalation: false,
  addCapabilities: [],
  dropCapabilities: [],
  seccomp: { kind: 'runtimeDefault' },
  procMount: 'Default',
};
const capabilities = capabilitiesOf(security);

/** The same container without disks and streams (`rehearse`). */
export function rehearsedContainer(agent: Welcome): ContainerParams {
  const { scratchDisk: _, ...params } = containerOf(agent, 0, 0);
  return { ...params, id: 'rehearsal' };
}

function containerOf(agent: Welcome, stdout: number, stderr: number): ContainerParams {
  return {
    id,
    imageDisk: serial,
    scratchDisk: scratchSerial,
    readOnlyRootfs: false,
    tty: false,
    stdio: { stdin: 0, stdout, stderr },
    process: {
      args: ['sh', '-c', 'echo; sleep 60'],
      env: [],
      cwd: '/',
      user: '',
      supplementalGroups: [],
      capabilities: [...capabilities],
      noNewPrivileges: true,
      rlimits: [],
    },
    mounts: [],
    privileged: false,
    seccomp: seccompOf(security, capabilities, agent),
    maskedPaths: [...maskedPaths],
    readonlyPaths: [...readonlyPaths],
    resources: { memoryLimitBytes: 64 * 1024 * 1024 },
    terminationLogPath: '/dev/termination-log',
  };
}

function failWhenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener(
      'abort',
      () => reject(new PodvmError('cancelled', 'Cannot exercise the machine: cancelled')),
      {
        once: true,
      },
    );
  });
}
