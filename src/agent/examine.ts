import type { ExaminedFile } from '#wire/examination.ts';
import { limits } from '#wire/limits.ts';
import type { Answer } from '#wire/messages.ts';
import { open } from '#engine/constants.ts';
import type { Clock, Descriptors, Text } from '#engine/engine.ts';
import { cgroupRoot, podCgroup } from './container/cgroups.ts';
import { readStart } from './container/read-start.ts';
import { etcRoot } from './container/rootfs.ts';
import type { Volumes } from './volume/volumes.ts';

type Parts = Pick<Clock, 'realtimeMs'> & Pick<Descriptors, 'open' | 'read' | 'close'> & Pick<Text, 'encodeBase64'>;

const paths: Readonly<Record<ExaminedFile, string>> = {
  fibTrie: '/proc/net/fib_trie',
  ifInet6: '/proc/net/if_inet6',
  route: '/proc/net/route',
  ipv6Route: '/proc/net/ipv6_route',
  arp: '/proc/net/arp',
  resolvConf: `${etcRoot}/resolv.conf`,
  cpuPressure: `${cgroupRoot}${podCgroup}/cpu.pressure`,
  memoryPressure: `${cgroupRoot}${podCgroup}/memory.pressure`,
  ioPressure: `${cgroupRoot}${podCgroup}/io.pressure`,
};

/** Reads the beginning of each file, since a container may make any number of routes. */
export function examine(parts: Parts, volumes: Pick<Volumes, 'spaces'>): Answer<'examine'> {
  const files = Object.entries(paths).flatMap(([name, path]) => {
    try {
      return [[name, readStart(parts, parts.open(path, open.readOnly), limits.maxExaminedBytes).data] as const];
    } catch {
      return []; // the kernel has no such file
    }
  });
  return { realtimeMs: parts.realtimeMs(), files: Object.fromEntries(files), volumes: volumes.spaces() };
}
