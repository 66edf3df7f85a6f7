import * as v from 'valibot';
import { parseQuantity } from '#base/quantity.ts';
import { killingProbe, lifecycle, readinessProbe } from './probe.ts';
import * as s from './scalars.ts';
import { containerSecurity } from './security.ts';
import { envSources, volumeDevice, volumeMount } from './volume.ts';

/** A container of a Pod; init containers are the same and may have `restartPolicy: Always`. */
const keyRef = v.object({ name: s.dnsSubdomain, key: s.configKey, optional: v.optional(s.boolean, false) });

const envVar = v.pipe(
  v.object({
    name: s.envName,
    value: v.optional(s.string),
    valueFrom: v.optional(
      v.pipe(
        v.looseObject({
          fieldRef: v.optional(envSources.fieldRef),
          resourceFieldRef: v.optional(envSources.resourceFieldRef),
          configMapKeyRef: v.optional(keyRef),
          secretKeyRef: v.optional(keyRef),
        }),
        s.exactlyOne(['fieldRef', 'resourceFieldRef', 'configMapKeyRef', 'secretKeyRef'], 'source', ['fileKeyRef']),
      ),
    ),
  }),
  v.check((variable) => !variable.value || variable.valueFrom === undefined, 'must not have both value and valueFrom'),
);
export type EnvVar = v.InferOutput<typeof envVar>;

const wholeRef = v.object({ name: s.dnsSubdomain, optional: v.optional(s.boolean, false) });
const envFrom = v.pipe(
  v.object({
    prefix: v.optional(s.string, ''),
    configMapRef: v.optional(wholeRef),
    secretRef: v.optional(wholeRef),
  }),
  s.exactlyOne(['configMapRef', 'secretRef'], 'source'),
);

const amounts = v.optional(
  v.object({
    cpu: v.optional(s.quantity),
    memory: v.optional(s.quantity),
    'ephemeral-storage': v.optional(s.quantity),
  }),
  {},
);
export const resources = v.pipe(
  v.object({ limits: amounts, requests: amounts }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const { limits, requests } = dataset.value;
    for (const name of ['cpu', 'memory', 'ephemeral-storage'] as const) {
      const limit = parseQuantity(limits[name] ?? '');
      const request = parseQuantity(requests[name] ?? '');
      if (limit !== undefined && request !== undefined && request.nano > limit.nano) {
        addIssue({
          message: `must be at most the ${name} limit of ${limits[name]}, got ${requests[name]}`,
          path: [s.fieldPath(dataset.value, 'requests'), s.fieldPath(requests, name)],
        });
      }
    }
  }),
);
export type ResourceSettings = v.InferOutput<typeof resources>;

const containerPort = v.object({
  name: v.optional(s.portName),
  containerPort: s.port,
  hostPort: s.unlessZero(s.port),
  hostIP: v.optional(s.ipAddress),
  protocol: v.optional(s.picklist(['TCP', 'UDP', 'SCTP']), 'TCP'),
});

const entries = {
  name: s.dnsLabel,
  image: s.imageReference,
  command: v.optional(s.list(s.string, 10_000)),
  args: v.optional(s.list(s.string, 10_000)),
  workingDir: v.optional(s.absolutePath),
  ports: v.optional(s.list(containerPort, 1000), []),
  envFrom: v.optional(s.list(envFrom, 1000), []),
  env: v.optional(s.list(envVar, 10_000), []),
  resources: v.optional(resources, {}),
  volumeMounts: v.optional(
    s.keyedList(volumeMount, 1000, (mount) => mount.mountPath),
    [],
  ),
  volumeDevices: v.optional(
    s.keyedList(volumeDevice, 100, (device) => device.devicePath),
    [],
  ),
  startupProbe: v.optional(killingProbe),
  livenessProbe: v.optional(killingProbe),
  readinessProbe: v.optional(readinessProbe),
  lifecycle: v.optional(lifecycle, {}),
  terminationMessagePath: v.optional(s.absolutePath, '/dev/termination-log'),
  terminationMessagePolicy: v.optional(s.picklist(['File', 'FallbackToLogsOnError']), 'File'),
  imagePullPolicy: v.optional(s.picklist(['Always', 'IfNotPresent', 'Never'])),
  securityContext: v.optional(containerSecurity, {}),
  stdin: v.optional(s.boolean, false),
  stdinOnce: v.optional(s.boolean, false),
  tty: v.optional(s.boolean, false),
};

function uniquePorts<T extends { readonly ports: readonly { readonly name?: string | undefined }[] }>() {
  return v.check<T, string>((value) => {
    const names = value.ports.flatMap((port) => (port.name === undefined ? [] : [port.name]));
    return new Set(names).size === names.length;
  }, 'must not have two ports of the same name');
}

export const container = v.pipe(v.object(entries), uniquePorts());

export const initContainer = v.pipe(
  v.object({
    ...entries,
    restartPolicy: v.optional(v.literal('Always', 'must be Always (a sidecar) or left out')),
  }),
  uniquePorts(),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed || dataset.value.restartPolicy === 'Always') return;
    const { startupProbe, livenessProbe, readinessProbe, lifecycle } = dataset.value;
    const given = { startupProbe, livenessProbe, readinessProbe, ...lifecycle };
    for (const [name, value] of Object.entries(given)) {
      if (value !== undefined) addIssue({ message: `must not have ${name}: it is no sidecar (restartPolicy: Always)` });
    }
  }),
);

/** Either kind; only an init container can have a restartPolicy. */
export type PodContainer = v.InferOutput<typeof container> & { readonly restartPolicy?: 'Always' | undefined };
