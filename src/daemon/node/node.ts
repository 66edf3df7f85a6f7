import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { type AdminParts, type AdminServer, serveAdmin } from '#admin/server.ts';
import { PodvmError } from '#base/errors.ts';
import type { Assets } from '#host/assets.ts';
import { systemClock } from '#host/clock.ts';
import { idleMsOf } from '#host/idle-time.ts';
import { descriptors } from '#host/process/descriptors.ts';
import type { Log } from '#host/log/log.ts';
import { keepRecent } from '#host/log/recent-log.ts';
import { openImageStore } from '#image/store/image-store.ts';
import type { ImageStore } from '#image/images.ts';
import { ociArchitecture } from '#image/oci.ts';
import { openSnapshotImages, type SnapshotImages } from '#image/snapshot/snapshot-images.ts';
import { startScrub } from '#image/store/scrub.ts';
import { connectLink } from '#link/connect-link.ts';
import type { NetworkReadiness } from '#network/network.ts';
import { openServiceNetwork } from '#network/service-network.ts';
import { createPodTable } from '#pod/pod-table.ts';
import { readBootId } from '#admin/record/live-record.ts';
import { serveMonitoring } from '#admin/routes/monitoring-server.ts';
import { MetricsPage } from '#metrics/metrics-page.ts';
import { programVersion } from '#host/program-files.ts';
import { userIdOf } from '#host/user-ids.ts';
import { defaultLimits, type SandboxLimits } from '#sandbox/limits.ts';
import type { Parts } from '#sandbox/parts.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import { openSandboxes, systemSurroundings } from '#sandbox/sandboxes.ts';
import { Keeper } from '#shim/keeper/keeper.ts';
import { holdAssets } from '#setup/hold-assets.ts';
import { adoptBlockClaim, claimBlock } from '#storage/block-claim.ts';
import { makeScratchDisk, makeVolumeDisk } from '#storage/scratch-disk.ts';
import { probeAccelerator } from '#vm/qemu/accelerator-probe.ts';
import { guestLevel } from '#vm/qemu/processor/processor-level.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { openEndedPods, openVolumes } from './ended-pods.ts';
import { followParts } from './follow-parts.ts';
import { freeAtRest } from './free-at-rest.ts';
import { machinePartsOf } from './machine-parts.ts';
import { openNetwork, type Purpose } from './node-network.ts';
import { outliveRejections } from './outlive-rejections.ts';
import { groupId } from './socket-group.ts';
import { readVersions } from './versions.ts';

/** User of the trial machines, below the range of the sandboxes' users. */
export const probeUid = userIdOf(1_999_999, 64_102);

/** Serves additional interfaces with the node's parts. */
export type NodeServer = (node: {
  readonly sandboxes: Sandboxes;
  readonly images: ImageStore;
  readonly keeper: Keeper;
  readonly log: Log;
  readonly accelerator: string;
  readonly networkReadiness: () => Promise<NetworkReadiness>;
}) => Promise<AsyncDisposable>;

/** What a node serves besides the admin API. */
export interface NodeServing {
  readonly serve?: NodeServer;
  readonly serveCommand?: AdminParts['serveCommand'];
}

/** All parts of one node. Serves the admin socket until it is disposed. */
export interface Node extends AsyncDisposable {
  /** Ends the pods that clients have started, which otherwise outlive this process. */
  endPods(): Promise<void>;
  /** Resolves when no client runs pods. */
  idle(): Promise<void>;
  /** Resolves when for `ms` no pod has run and no client has called, or when `signal` aborts. */
  idleFor(ms: number, signal: AbortSignal): Promise<void>;
  /** Makes the template of the node's machines, if they share one and it is missing. */
  warmUp(signal: AbortSignal): Promise<void>;
}

/**
 * Old objects are collected when they have grown by 80 %: a daemon of two pods takes 121 to 124 MB instead of 153 after it
 * has answered 8,000 lists and statuses, for the same processor time. (30 %: 106 to 114 MB, and half as much time again.) The
 * last of V8's compilers is not used: its pages of Node's program are 5.4 MB, and a list takes the same time without it. Set
 * here, and not on the command line: there, V8 refuses the compiled code of Node's own modules, which costs every command 17 ms.
 */
const engineFlags = ['--heap-growing-percent=80', '--no-opt'];

/**
 * Builds the parts of a node and serves them. Errors: `busy` when another process uses the state directory, and those
 * of each part.
 */
export async function openNode(
  config: Configuration,
  given: Assets,
  givenLog: Log,
  signal: AbortSignal,
  purpose: Purpose,
  { serve, serveCommand }: NodeServing = {},
): Promise<Node> {
  for (const flag of engineFlags) setFlagsFromString(flag);
  const recent = keepRecent(givenLog);
  const { log } = recent;
  const network = openNetwork(config, purpose, log);
  await using undo = new AsyncDisposableStack();
  undo.use(outliveRejections(process, log));
  undo.use(
    descriptors.hold((isShort, counts) => {
      if (isShort) log.warn('short of file descriptors: new pods are refused', { ...counts });
      else log.info('there are enough file descriptors again', { ...counts });
    }),
  );
  const version = await programVersion(config.repo);
  if (config.traces !== undefined) {
    const { openTracing } = await import('./tracing.ts');
    undo.use(await openTracing(config.traces, version, log));
  }
  await mkdir(config.root, { recursive: true, mode: 0o755 });
  const held = await holdAssets(config, given);
  undo.use(held);
  let { assets } = held;
  const probe = (of: Assets, probing: AbortSignal) =>
    probeAccelerator(
      { assets: of, directory: join(config.root, 'probe'), uid: probeUid, forced: config.accelerator },
      probing,
    );
  const { accelerator, reason } = await probe(assets, signal);
  log.info('accelerator chosen', { accelerator, reason });
  // The sandboxes' lock protects the whole state directory. Images are opened under it and locked later.
  const opening = Promise.withResolvers<ImageStore>();
  let opened: ImageStore | undefined;
  const openingSnapshots = Promise.withResolvers<SnapshotImages>();
  const shim = { socketPath: config.shimSocketPath, directory: join(config.root, 'shim') };
  const keeper = undo.use(new Keeper({ ...shim, clock: systemClock, log }));
  const partsOf = (of: Assets): Parts => ({
    ...machinePartsOf(config, of, accelerator, log),
    network,
    images: {
      hold: async (...request) => await (await opening.promise).hold(...request),
      get: (reference) => opened?.get(reference),
    },
    snapshots: {
      hold: async (...request) => await (await openingSnapshots.promise).hold(...request),
      holdMade: async (id) => await (await openingSnapshots.promise).holdMade(id),
    },
    connectLink,
    openFifos: (fifos) => keeper.openFifos(fifos),
    makeScratchDisk,
    makeVolumeDisk,
    claimBlock,
    adoptBlockClaim,
  });
  const sandboxes = undo.use(
    await openSandboxes(
      {
        directory: config.root,
        log,
        surroundings: { ...systemSurroundings, idleMs: async () => idleMsOf(await readFile('/proc/stat', 'latin1')) },
        poolSize: config.poolSize,
        takesOver: ({ keptFor }) => purpose === 'daemon' || (purpose === 'background' && keptFor === 'podvm'),
        template: config.template,
        limits: limitsOf(config),
        parts: partsOf(assets),
      },
      signal,
    ),
  );
  const images = await openImageStore({
    directory: join(config.root, 'images'),
    get sysroot() {
      return assets.sysroot; // an upgrade changes it
    },
    containersDirectory: config.containersDirectory,
    ...(config.authFile === undefined ? {} : { authFile: config.authFile }),
    processor: {
      architecture: ociArchitecture(),
      level: guestLevel(accelerator, assets.qemuVersion, await readFile('/proc/cpuinfo', 'utf8')),
    },
    log,
  });
  opened = images;
  opening.resolve(images);
  openingSnapshots.resolve(
    await openSnapshotImages({
      directory: join(config.root, 'snapshots'),
      get sysroot() {
        return assets.sysroot;
      },
      log,
    }),
  );
  undo.use(startScrub(images, { clock: systemClock, log }));
  const metrics = undo.use(
    new MetricsPage({ directory: config.root, sandboxes, images, version, clock: systemClock, log }),
  );
  const monitoring = {
    metrics,
    versions: () => readVersions(config, version),
    whyNotReady: () => whyNotReady(network),
  };
  if (purpose === 'daemon' && config.metrics !== undefined) {
    const { port } = undo.use(await serveMonitoring(config.metrics, monitoring));
    log.info('serving metrics', { address: config.metrics.address, port });
  }
  const volumes = openVolumes(config);
  const admin: AdminServer = undo.use(
    await serveAdmin(
      config.socketPath,
      {
        sandboxes,
        images,
        log,
        clock: systemClock,
        monitoring,
        diskUsage: async (asking) => {
          const { readDiskUsage } = await import('./disk-usage.ts'); // a node that is not asked does without
          return await readDiskUsage(config.root, asking);
        },
        recentLog: () => recent.text(),
        pods: createPodTable(),
        ended: await openEndedPods(config, log),
        volumes,
        ...(serveCommand && { serveCommand }),
        services: {
          path: join(config.root, 'services.json'),
          network: openServiceNetwork(join(config.root, 'network'), network),
        },
        cronJobsPath: join(config.root, 'cron-jobs.json'),
        jobsDirectory: join(config.root, 'jobs'),
        ...(purpose === 'command'
          ? {}
          : { keeping: { bootId: await readBootId(), startsAfterBoot: purpose === 'daemon' } }),
        node: {
          nodeName: config.nodeName,
          seccompDirectory: join(config.root, 'seccomp'),
          volumePath: (namespace, name) => volumes.pathOf(namespace, name),
        },
      },
      { gid: await groupId(config.socketGroup) },
    ),
  );
  const take = async (newer: Assets, taking: AbortSignal) => {
    const found = await probe(newer, taking);
    if (found.accelerator !== accelerator) {
      throw new PodvmError('failedPrecondition', `Cannot switch to other parts: with them, ${found.reason}`, {
        fix: 'Run `podvm doctor`; running pods keep their parts.',
      });
    }
    const done = await sandboxes.upgrade(partsOf(newer), taking);
    assets = newer;
    return done;
  };
  undo.use(followParts({ config, held, log, take }));
  if (purpose !== 'command') undo.use(freeAtRest());
  undo.use(await serve?.({ sandboxes, images, keeper, log, accelerator, networkReadiness: () => network.readiness() }));
  const owned = undo.move();
  return {
    endPods: () => admin.endPods(),
    idle: () => admin.idle(),
    idleFor: (ms, until) => admin.idleFor(ms, until),
    warmUp: (warming) => sandboxes.warmUp('template', warming),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function whyNotReady(network: { readiness(): Promise<NetworkReadiness> }): Promise<readonly string[]> {
  const readiness = await network.readiness();
  return [
    ...(readiness.isReady ? [] : [readiness.message]),
    ...(descriptors.hasRoomFor(1) ? [] : ['the process is short of file descriptors']),
  ];
}

function limitsOf({ machineMemoryMiB, memoryReserveMiB }: Configuration): SandboxLimits {
  const { size, memoryReserveBytes } = defaultLimits;
  return {
    ...defaultLimits,
    size: { ...size, nominalMemoryMiB: machineMemoryMiB ?? size.nominalMemoryMiB },
    memoryReserveBytes: memoryReserveMiB === undefined ? memoryReserveBytes : memoryReserveMiB * 1024 * 1024,
  };
}
