import { resolve } from 'node:path';
import { memoryQuantity } from './amounts.ts';
import { wrongFlag } from './flag-error.ts';

/** A volume of the Pod and where its container mounts it. */
export interface Mounted {
  readonly volume: { readonly name: string } & VolumeSource;
  readonly mount: { readonly name: string; readonly mountPath: string };
}

interface VolumeSource {
  readonly hostPath?: { readonly path: string };
  readonly emptyDir?: object;
  readonly image?: { readonly reference: string };
}

const volumeShape = 'Write it as HOST-PATH:CONTAINER-PATH[:ro], or CONTAINER-PATH alone for a volume of the pod.';
const mountShape =
  'Write it as type=bind,source=HOST-PATH,target=CONTAINER-PATH[,readonly], or with type=volume, tmpfs or image.';

/** Options of `-v`, with the fields that each adds to the mount. Docker and Podman know all of them. */
const volumeOptions: Readonly<Record<string, object>> = {
  rw: {},
  ro: { readOnly: true },
  // Labels of SELinux, which the guest does not have, and hints for Docker's own machine on other systems.
  z: {},
  Z: {},
  cached: {},
  delegated: {},
  consistent: {},
  private: {},
  rprivate: {},
  slave: { mountPropagation: 'HostToContainer' },
  rslave: { mountPropagation: 'HostToContainer' },
};

/** Parses one `-v`. `name`: name of the volume. */
export function mountedByVolume(flag: string, value: string, name: string): Mounted {
  const refuse = (why: string) => wrongFlag(flag, value, why, volumeShape);
  const [first = '', second, options, ...more] = value.split(':');
  if (more.length > 0) throw refuse('it has more than three parts');
  const [source, target] = second === undefined ? [undefined, first] : [first, second];
  if (!target.startsWith('/')) throw refuse('the path in the container must be absolute');
  const added = (options ?? 'rw').split(',').map((option) => {
    if (Object.hasOwn(volumeOptions, option)) return volumeOptions[option];
    throw refuse(`the option ${option} has no meaning for a Pod`);
  });
  const mount = Object.assign({ name, mountPath: target }, ...added) as Mounted['mount']; // SAFE: the options add to it
  return { volume: source === undefined ? { name, emptyDir: {} } : bind(flag, value, name, source), mount };
}

/** Makes a volume of a path of the host. Volumes by name, as in Docker, are refused. */
function bind(flag: string, value: string, name: string, source: string): Mounted['volume'] {
  if (!/^\.{0,2}\/|^\.{1,2}$/.test(source)) {
    const fix = /^\w[\w.-]*$/.test(source)
      ? `Use a directory of the host, such as ./${source}, or a PersistentVolumeClaim in a file.`
      : volumeShape;
    throw wrongFlag(flag, value, `${source || 'an empty word'} is not a path, and -v takes no volumes by name`, fix);
  }
  return { name, hostPath: { path: resolve(source) } };
}

/** Keys of `--mount`, each with the name that is used here. */
const mountKeys: Readonly<Record<string, string>> = {
  type: 'type',
  source: 'source',
  src: 'source',
  target: 'target',
  dst: 'target',
  destination: 'target',
  readonly: 'readonly',
  ro: 'readonly',
  'tmpfs-size': 'tmpfs-size',
};

/** Parses one `--mount`. A path of the host must exist, as in Docker: neither podvm nor the pod creates it. */
export function mountedByMount(flag: string, value: string, name: string): Mounted {
  const refuse = (why: string) => wrongFlag(flag, value, why, mountShape);
  const given = new Map<string, string>();
  for (const pair of value.split(',')) {
    const [written = '', ...rest] = pair.split('=');
    const key = Object.hasOwn(mountKeys, written) ? mountKeys[written] : undefined;
    if (key === undefined) throw refuse(`${written || 'an empty key'} has no meaning for a Pod`);
    given.set(key, rest.length === 0 ? 'true' : rest.join('='));
  }
  const { type = 'volume', source, target, readonly = 'false' } = Object.fromEntries(given);
  if (target === undefined) throw refuse('the target is missing');
  if (!['true', '1', 'false', '0'].includes(readonly)) throw refuse('readonly is true or false');
  if (given.has('tmpfs-size') && type !== 'tmpfs') throw refuse('tmpfs-size is for type=tmpfs');
  const mount = { name, mountPath: target, ...(['true', '1'].includes(readonly) ? { readOnly: true } : {}) };
  return { volume: { name, ...volumeSource(type, source, given.get('tmpfs-size'), refuse) }, mount };
}

function volumeSource(
  type: string,
  source: string | undefined,
  size: string | undefined,
  refuse: (why: string) => Error,
): VolumeSource {
  const needed = () => {
    if (source === undefined) throw refuse('the source is missing');
    return source;
  };
  switch (type) {
    case 'bind':
      return { hostPath: { path: resolve(needed()) } };
    case 'image':
      return { image: { reference: needed() } };
    case 'volume':
      if (source !== undefined) throw refuse('--mount takes no volumes by name');
      return { emptyDir: {} };
    case 'tmpfs': {
      const limit = size === undefined ? undefined : memoryQuantity(size);
      if (size !== undefined && limit === undefined) throw refuse(`${size} is not a size such as 64m`);
      return { emptyDir: { medium: 'Memory', ...(limit === undefined ? {} : { sizeLimit: limit }) } };
    }
    default:
      throw refuse(`there is no type ${type}`);
  }
}
