import * as v from 'valibot';
import * as s from './scalars.ts';

/** securityContext of pods and containers. */
const seccompProfile = v.pipe(
  v.object({
    type: s.picklist(['RuntimeDefault', 'Unconfined', 'Localhost']),
    localhostProfile: v.optional(s.relativePath),
  }),
  v.check(
    (profile) => (profile.type === 'Localhost') === (profile.localhostProfile !== undefined),
    'must have a localhostProfile if and only if its type is Localhost',
  ),
);
export type SeccompSetting = v.InferOutput<typeof seccompProfile>;

const identity = {
  runAsUser: v.optional(s.id),
  runAsGroup: v.optional(s.id),
  runAsNonRoot: v.optional(s.boolean),
  seccompProfile: v.optional(seccompProfile),
};

const capability = v.pipe(
  s.string,
  v.regex(/^(CAP_)?[A-Z][A-Z0-9_]{1,40}$/i, 'must be a capability such as NET_ADMIN, or ALL'),
  v.transform((name) => name.toUpperCase().replace(/^CAP_/, '')), // as container runtimes do
);

export const containerSecurity = v.pipe(
  v.object({
    ...identity,
    privileged: v.optional(s.boolean),
    readOnlyRootFilesystem: v.optional(s.boolean),
    allowPrivilegeEscalation: v.optional(s.boolean),
    capabilities: v.optional(
      v.object({ add: v.optional(s.list(capability, 64), []), drop: v.optional(s.list(capability, 64), []) }),
    ),
    procMount: v.optional(s.picklist(['Default', 'Unmasked'])),
  }),
  v.check(
    (it) => it.allowPrivilegeEscalation !== false || it.privileged !== true,
    'must not have allowPrivilegeEscalation: false together with privileged: true',
  ),
  v.check(
    (it) => it.allowPrivilegeEscalation !== false || it.capabilities?.add.includes('SYS_ADMIN') !== true,
    'must not have allowPrivilegeEscalation: false together with the capability SYS_ADMIN',
  ),
);

/** Sysctls of the pod's own namespaces. A machine has all of them for itself; the others belong to the kernel. */
const sysctlName = v.pipe(
  s.string,
  v.maxLength(253, 'must have at most 253 characters'),
  v.regex(/^[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*$/, 'must be a sysctl name'),
  v.transform((name) => name.replaceAll('/', '.')),
  s.supported(
    (name) => /^(net\.|kernel\.shm|kernel\.msg|kernel\.sem$|fs\.mqueue\.)/.test(name),
    (issue) =>
      `must be a namespaced sysctl (net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*), got ${issue.input}`,
  ),
);

export const podSecurity = v.object({
  ...identity,
  supplementalGroups: v.optional(s.list(s.id, 256), []),
  supplementalGroupsPolicy: v.optional(s.picklist(['Merge', 'Strict'])),
  fsGroup: v.optional(s.id),
  /** No effect: volumes are made for the pod, so their owner is right from the beginning. */
  fsGroupChangePolicy: v.optional(s.picklist(['OnRootMismatch', 'Always'])),
  sysctls: v.optional(
    s.keyedList(v.object({ name: sysctlName, value: s.string }), 256, (sysctl) => sysctl.name),
    [],
  ),
});
