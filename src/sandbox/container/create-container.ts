import { kindOf, messageOf, type ErrorKind } from '#base/errors.ts';
import type { HeldImage, ImageConfig } from '#image/images.ts';
import { checkContainerSpec } from './check-spec.ts';
import { openContainerIo, type ContainerIoSite } from './container-io.ts';
import { type ContainerMounts, type PreparedMounts, unheldMounts } from '../volume/container-mounts.ts';
import { scratchSerial } from '../volume/volume-disks.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { ContainerHome, ContainerMade } from './container-home.ts';
import type { GuestContainer } from './guest-container.ts';
import { startErrorCode } from './start-error.ts';
import type { ImageDisks } from '../volume/image-disks.ts';
import { givenCapabilities, needsModules } from './kernel-modules.ts';
import type { ModulesDisk } from './modules-disk.ts';
import type { Parts } from '../parts.ts';
import { createPhases, type PhaseClock } from '../state/phases.ts';
import { processOf, stopSignalOf } from './process.ts';
import { envBytesOf } from './process-size.ts';
import { cgroupResourcesOf, checkResources } from '../resources.ts';
import type { ContainerSpec, SandboxSpec } from '../sandbox.ts';
import { seccompOf } from './seccomp.ts';

export interface ContainerSite extends ContainerIoSite, Omit<ContainerHome, 'records'> {
  readonly spec: SandboxSpec;
  readonly parts: Pick<Parts, 'images' | 'snapshots' | 'openFifos'>;
  readonly imageDisks: ImageDisks;
  readonly modulesDisk: ModulesDisk;
  readonly mounts: ContainerMounts;
}

/** Errors of agent and crun about a command, user or mount: the container exits instead of the call failing. */
const startErrors: ReadonlySet<ErrorKind> = new Set(['failedPrecondition']);

/**
 * Makes the container in the guest, so that it can be started. A command that cannot run (not found, not executable)
 * results in a container that has exited with StartError. Errors: `invalid`, `notFound` (image), those of image, machine
 * and agent; then nothing of it is left in the guest.
 */
export async function createInGuest(
  container: GuestContainer,
  spec: ContainerSpec,
  site: ContainerSite,
  signal: AbortSignal,
): Promise<void> {
  checkResources(`container ${spec.name}`, spec.resources);
  checkContainerSpec(spec);
  const capabilities = givenCapabilities(spec.security, site.spec);
  const seccomp = seccompOf(spec.security, capabilities, site.guest.welcome);
  const phases = createPhases(site.surroundings.monotonicNs);
  const image = await phases.time('image held', holdRootfs(spec, site.parts, signal));
  await site.starts.during(() => createFrom(image, { container, spec, site, phases, capabilities, seccomp }, signal));
}

interface Creation extends Pick<Prepared, 'capabilities' | 'seccomp'> {
  readonly container: GuestContainer;
  readonly spec: ContainerSpec;
  readonly site: ContainerSite;
  readonly phases: PhaseClock;
}

async function createFrom(
  image: HeldImage,
  { container, spec, site, phases, capabilities, seccomp }: Creation,
  signal: AbortSignal,
): Promise<void> {
  const { id: imageId, config } = image;
  await using undo = new AsyncDisposableStack();
  await using unmounting = new AsyncDisposableStack(); // disposed of after the container itself
  undo.defer(() => (container.isMade ? undefined : site.records?.remove(container.id)));
  // The first image that a machine is asked for may be plugged already: images that are mounted come after that.
  const parts = [
    site.imageDisks.attach(image, phases, signal),
    needsModules(capabilities) ? site.modulesDisk.attach(phases, signal) : Promise.resolve(undefined),
    phases.time('volumes attached', site.mounts.prepare(spec, signal)).then((made) => unmounting.use(made)),
    openContainerIo(container, site).then((made) => undo.use(made)),
  ] as const;
  await Promise.allSettled(parts); // after an error, those that are made later are undone, too
  const [imageDisk, modulesDisk, mounts, io] = await Promise.all(parts);
  const made: ContainerMade = { imageId, stopSignal: stopSignalOf(config), ...io, mounts };
  try {
    const params = paramsOf(container, spec, site, {
      imageDisk,
      modulesDisk,
      mounts,
      capabilities,
      seccomp,
      config,
      stdio: io.stdio,
    });
    made.envBytes = envBytesOf(params.process.env);
    const created = await phases.time('container made', site.guest.call('createContainer', params, signal));
    phases.add('guest', created.phases);
    made.user = { uid: created.uid, gid: created.gid, groups: created.groups };
    site.log.info('container created', { container: spec.name, ...phases.fields() });
  } catch (error) {
    await removeHalf(container, site);
    if (signal.aborted || !startErrors.has(kindOf(error))) throw error;
    const message = error instanceof Error ? error.message : messageOf(error); // only the agent's message
    const unheld = unheldMounts(mounts.status);
    const unstartable = { ...made, mounts: unheld }; // `unmounting` releases them here
    await site.inbox.ask(() => container.becomeUnstartable(unstartable, startErrorCode(message), message));
    await container.saved;
    return;
  }
  await site.inbox.ask(() => container.becomeCreated(made));
  await container.saved;
  unmounting.move(); // released when the container is removed
  const owned = undo.move();
  io.output.ended
    .then(() => owned.disposeAsync())
    .catch((error: unknown) => site.log.error('output not closed', error, { container: spec.name }));
}

async function holdRootfs(
  { rootfs, image, imagePullPolicy, pullLogins }: ContainerSpec,
  { images, snapshots }: ContainerSite['parts'],
  signal: AbortSignal,
): Promise<HeldImage> {
  if (rootfs !== undefined) return await snapshots.hold(rootfs, signal);
  return await images.hold(image, imagePullPolicy, signal, pullLogins === undefined ? {} : { logins: pullLogins });
}

async function removeHalf(container: GuestContainer, site: ContainerSite): Promise<void> {
  try {
    const deadline = AbortSignal.timeout(site.limits.cleanUpTimeoutMs);
    await site.guest.call('removeContainer', { id: container.id }, deadline);
  } catch (error) {
    site.log.debug('incomplete container not removed', { container: container.spec.name, why: kindOf(error) });
  }
}

interface Prepared {
  readonly imageDisk: string;
  readonly modulesDisk: string | undefined;
  readonly mounts: PreparedMounts;
  readonly capabilities: readonly string[];
  readonly seccomp: ContainerParams['seccomp'];
  readonly config: ImageConfig;
  readonly stdio: ContainerParams['stdio'];
}

function paramsOf(
  container: GuestContainer,
  spec: ContainerSpec,
  site: ContainerSite,
  prepared: Prepared,
): ContainerParams {
  const { security } = spec;
  const isUnmasked = security.privileged || security.procMount === 'Unmasked';
  return {
    id: container.id,
    imageDisk: prepared.imageDisk,
    scratchDisk: scratchSerial,
    ...(prepared.modulesDisk === undefined ? {} : { modulesDisk: prepared.modulesDisk }),
    ...layerLimitOf(spec),
    ...(spec.ownPidNamespace === true ? { ownPidNamespace: true } : {}),
    ...(spec.pidNamespaceOf === undefined ? {} : { pidNamespaceOf: spec.pidNamespaceOf }),
    readOnlyRootfs: security.readOnlyRootFilesystem,
    tty: spec.tty,
    stdio: prepared.stdio,
    process: processOf(spec, prepared.config, prepared.capabilities, site.spec.fsGroup),
    mounts: [...prepared.mounts.guest],
    ...(prepared.config.volumes === undefined ? {} : { imageVolumes: [...prepared.config.volumes] }),
    devices: [...prepared.mounts.devices],
    privileged: security.privileged,
    seccomp: prepared.seccomp,
    maskedPaths: [...(security.maskedPaths ?? (isUnmasked ? [] : maskedPaths))],
    readonlyPaths: [...(security.readonlyPaths ?? (isUnmasked ? [] : readonlyPaths))],
    resources: cgroupResourcesOf(container.resources),
    ...(spec.terminationMessagePath === undefined ? {} : { terminationLogPath: spec.terminationMessagePath }),
  };
}

const layerLimitOf = ({ resources: { ephemeralStorageBytes: layerLimitBytes } }: ContainerSpec) =>
  layerLimitBytes === undefined ? {} : { layerLimitBytes };

/** containerd's defaults (oci/spec.go): paths of /proc and /sys that reveal or reach the kernel. */
export const maskedPaths = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
] as const;
export const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'] as const;
