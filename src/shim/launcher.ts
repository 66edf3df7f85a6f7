import { create, toBinary } from '@bufbuild/protobuf';
import { eventsFile } from './bundle/bundle.ts';
import { keeperSocketsOf } from './keeper/keeper-sockets.ts';
import { DeleteResponseSchema } from './schema/generated/runtime/task/v2/shim_pb.ts';
import { RuntimeInfoSchema } from './schema/generated/types/introspection_pb.ts';
import { ownMounts } from './translate/rootfs.ts';

/** The name by which containerd finds the program for `runtime_type = "io.containerd.podvm.v2"`. */
export const launcherName = 'containerd-shim-podvm-v2';

/** 128 + SIGKILL: the reported exit status of a task whose daemon is gone. */
const killedStatus = 137;

const features = {
  ociVersionMin: '1.0.0',
  ociVersionMax: '1.2.0',
  mountOptions: ['bind', 'rbind', 'ro', 'rw', 'rro', 'private', 'rprivate', 'slave', 'rslave'],
  linux: {
    namespaces: ['cgroup', 'ipc', 'mount', 'network', 'pid', 'user', 'uts'],
    // Containerd demands it for a pod with users of its own. Shared files have the owners that they have in the pod.
    mountExtensions: { idmap: { enabled: true } },
  },
};

/**
 * The program that containerd runs for each pod (docs: runtime v2, "shim protocol"). It prints the address of the daemon's
 * socket and exits, so that no process stays. Containerd reads both of its outputs as the address, so it writes nothing
 * else on success.
 */
export function launcherOf(socketPath: string, version: string): string {
  const info = create(RuntimeInfoSchema, {
    name: 'io.containerd.podvm.v2',
    version: { version },
    annotations: ownMounts,
    features: {
      typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/features/Features',
      value: new TextEncoder().encode(JSON.stringify(features)),
    },
  });
  const { shim, wanted } = keeperSocketsOf(socketPath);
  const killed = create(DeleteResponseSchema, { exitStatus: killedStatus });
  return `#!/bin/sh
# Made by podvm. Containerd runs it for the runtime podvm; it tells where the daemon of podvm listens.
address='unix://${socketPath}'
for last; do :; done
case "$last" in
  start)
    printf %s "$address" >address               # containerd 1.x reads it after its restart
    printf %s "$TTRPC_ADDRESS" >${eventsFile}   # where the daemon tells the events of this bundle
    if [ ! -S '${shim}' ] && touch '${wanted}' 2>&-; then   # asks the daemon, which then serves containerd
      for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -S '${shim}' ] || sleep 0.25; done
    fi
    printf %s "$address" ;;
  delete) printf '${octal(toBinary(DeleteResponseSchema, killed))}' ;;
  -info) printf '${octal(toBinary(RuntimeInfoSchema, info))}' ;;
  -v) echo 'podvm ${version}' ;;
  *) echo "podvm: unknown: $*" >&2; exit 1 ;;
esac
`;
}

/** Bytes as printf's format takes them. */
const octal = (bytes: Uint8Array) => [...bytes].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
