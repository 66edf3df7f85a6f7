import type { Link } from '#link/link.ts';
import type { MachineSize } from '../resources.ts';
import type { SandboxSpec, SandboxVolume } from '../sandbox.ts';
import { pushVolume } from './push-volume.ts';
import { scratchSerial, roomOfOwn, type VolumeDisks } from './volume-disks.ts';

export interface VolumesPlace {
  readonly guest: Pick<Link, 'call'>;
  readonly disks: VolumeDisks;
  readonly size: MachineSize;
}

type VolumesSpec = Pick<SandboxSpec, 'volumes' | 'fsGroup'>;

/** Maximum volumes made at a time: making a disk is mostly waiting, for host and guest in turn. */
const volumesAtATime = 4;

/**
 * Makes the volumes that begin with the pod. When one fails, the others are aborted and awaited, and the first failure is
 * thrown. Errors: those of machine and agent.
 */
export async function makeVolumes(spec: VolumesSpec, place: VolumesPlace, signal: AbortSignal): Promise<void> {
  const failed = new AbortController();
  const both = AbortSignal.any([signal, failed.signal]);
  const left = spec.volumes.values();
  const makeSome = async () => {
    try {
      for (const volume of left) await makeVolume(spec, volume, place, both);
    } catch (error) {
      failed.abort(error);
    }
  };
  await Promise.all(Array.from({ length: volumesAtATime }, makeSome));
  failed.signal.throwIfAborted();
}

async function makeVolume(
  { fsGroup }: VolumesSpec,
  volume: SandboxVolume,
  { guest, disks, size }: VolumesPlace,
  signal: AbortSignal,
): Promise<void> {
  const { name, kind } = volume;
  const room = roomOfOwn(volume, size);
  const disk = room === undefined ? scratchSerial : await disks.plug(room, signal);
  const isLimited = volume.kind !== 'push' && volume.sizeLimitBytes !== undefined && room === undefined;
  await guest.call(
    'createVolume',
    {
      name,
      kind,
      ...(kind === 'scratch' ? { disk } : {}),
      ...(isLimited ? { sizeLimitBytes: volume.sizeLimitBytes } : {}),
      ...(fsGroup === undefined ? {} : { fsGroup }),
    },
    signal,
  );
  if (volume.kind === 'push') await pushVolume(guest, name, volume.files, signal);
}
