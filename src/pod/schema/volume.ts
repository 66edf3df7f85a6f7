import * as v from 'valibot';
import * as s from './scalars.ts';

/** Volumes of a Pod. Sources that are not here are in `unsupported.ts`, each with its reason. */
const items = v.optional(
  s.list(v.object({ key: s.configKey, path: s.relativePath, mode: v.optional(s.fileMode) }), 1000),
);

const subscripted = String.raw`metadata\.(labels|annotations)\['[^']+'\]`;
const plainFields = String.raw`metadata\.(name|namespace|uid)`;
const fieldRef = (pattern: RegExp) =>
  v.object({
    apiVersion: v.optional(v.literal('v1', 'must be v1')),
    fieldPath: v.pipe(
      s.string,
      v.maxLength(600, 'must have at most 600 characters'),
      v.regex(pattern, (issue) => `must be a field that containers may see, got ${s.describe(issue.input)}`),
    ),
  });
const envFieldRef = fieldRef(
  new RegExp(`^(${plainFields}|${subscripted}|spec\\.(nodeName|serviceAccountName)|status\\.(podIPs?|hostIPs?))$`),
);
const volumeFieldRef = fieldRef(new RegExp(`^(${plainFields}|${subscripted}|metadata\\.(labels|annotations))$`));
const resourceFieldRef = v.object({
  containerName: v.optional(s.dnsLabel),
  resource: s.picklist([
    'limits.cpu',
    'limits.memory',
    'limits.ephemeral-storage',
    'requests.cpu',
    'requests.memory',
    'requests.ephemeral-storage',
  ]),
  divisor: v.optional(s.quantity),
});
export type ResourceFieldRef = v.InferOutput<typeof resourceFieldRef>;

const downwardItems = v.optional(
  s.list(
    v.pipe(
      v.object({
        path: s.relativePath,
        fieldRef: v.optional(volumeFieldRef),
        resourceFieldRef: v.optional(resourceFieldRef),
        mode: v.optional(s.fileMode),
      }),
      s.exactlyOne(['fieldRef', 'resourceFieldRef'], 'source'),
    ),
    1000,
  ),
  [],
);
export type DownwardItem = v.InferOutput<typeof downwardItems>[number];
export const envSources = { fieldRef: envFieldRef, resourceFieldRef };

const optional = v.optional(s.boolean, false);
const defaultMode = v.optional(s.fileMode, 0o644);

const projection = v.pipe(
  v.looseObject({
    configMap: v.optional(v.object({ name: s.dnsSubdomain, items, optional })),
    secret: v.optional(v.object({ name: s.dnsSubdomain, items, optional })),
    downwardAPI: v.optional(v.object({ items: downwardItems })),
  }),
  s.exactlyOne(['configMap', 'secret', 'downwardAPI'], 'source', [
    'serviceAccountToken',
    'clusterTrustBundle',
    'podCertificate',
  ]),
);

/** Types of a hostPath that are refused: they give access to the host's kernel. */
const doors: readonly string[] = ['Socket', 'CharDevice'];
const hostPathType = v.pipe(
  s.string,
  s.supported(
    (type) => !doors.includes(type),
    (issue) => `must not be ${s.describe(issue.input)}: what is behind it is in the host's kernel, not the machine's`,
  ),
  s.picklist(['', 'Directory', 'DirectoryOrCreate', 'File', 'FileOrCreate', 'BlockDevice', ...doors]),
);

const medium = v.pipe(
  s.picklist(['', 'Memory', 'HugePages', 'HugePages-2Mi', 'HugePages-1Gi']),
  s.supported(
    (it) => !it.startsWith('HugePages'),
    () => 'must be "" or Memory: the guest has no huge pages',
  ),
);

const sourceNames = [
  ...(['emptyDir', 'configMap', 'secret', 'downwardAPI', 'projected', 'image', 'hostPath'] as const),
  'persistentVolumeClaim',
] as const;

export const volume = v.pipe(
  v.object({
    name: s.dnsLabel,
    image: v.optional(
      v.object({
        reference: s.imageReference,
        pullPolicy: v.optional(s.picklist(['Always', 'IfNotPresent', 'Never'])),
      }),
    ),
    emptyDir: v.optional(v.object({ medium: v.optional(medium, ''), sizeLimit: v.optional(s.quantity) })),
    configMap: v.optional(v.object({ name: s.dnsSubdomain, items, optional, defaultMode })),
    secret: v.optional(v.object({ secretName: s.dnsSubdomain, items, optional, defaultMode })),
    downwardAPI: v.optional(v.object({ items: downwardItems, defaultMode })),
    projected: v.optional(v.object({ sources: v.optional(s.list(projection, 1000), []), defaultMode })),
    hostPath: v.optional(v.object({ path: s.absolutePath, type: v.optional(hostPathType, '') })),
    persistentVolumeClaim: v.optional(v.object({ claimName: s.dnsSubdomain, readOnly: v.optional(s.boolean, false) })),
  }),
  // A volume that names no source is an emptyDir (Kubernetes' SetDefaults_Volume).
  v.transform((value) =>
    sourceNames.some((name) => value[name] !== undefined) ? value : { ...value, emptyDir: { medium: '' as const } },
  ),
  s.exactlyOne([...sourceNames], 'source'),
);
export type Volume = v.InferOutput<typeof volume>;

/** Returns whether recursive read-only is requested. Without a setting it is recursive too, as far as possible. */
const isRecursive = (asked: string | undefined) => asked === 'IfPossible' || asked === 'Enabled';

export const volumeMount = v.pipe(
  v.object({
    name: s.dnsLabel,
    mountPath: s.mountPath,
    subPath: v.optional(s.relativePath),
    subPathExpr: v.optional(s.relativePath),
    readOnly: v.optional(s.boolean, false),
    mountPropagation: v.optional(
      v.pipe(
        s.picklist(['None', 'HostToContainer', 'Bidirectional']),
        s.supported(
          (mode) => mode !== 'Bidirectional',
          (issue) =>
            `must be None or HostToContainer, got ${s.describe(issue.input)}: what a container mounts stays in its machine`,
        ),
      ),
    ),
    recursiveReadOnly: v.optional(s.picklist(['Disabled', 'IfPossible', 'Enabled'])),
  }),
  v.check(
    (mount) => !isRecursive(mount.recursiveReadOnly) || mount.readOnly,
    'must have readOnly: true for its recursiveReadOnly',
  ),
  v.check(
    (mount) => !isRecursive(mount.recursiveReadOnly) || mount.mountPropagation !== 'HostToContainer',
    'must not have a mountPropagation with its recursiveReadOnly',
  ),
  v.check(
    (mount) => mount.subPath === undefined || mount.subPathExpr === undefined,
    'must not have both subPath and subPathExpr',
  ),
  v.check((mount) => !mount.mountPath.includes(':'), 'must not have ":" in its mountPath'),
);

/** A volume as a device: a hostPath of a block device or an image file. */
export const volumeDevice = v.object({ name: s.dnsLabel, devicePath: s.absolutePath });
