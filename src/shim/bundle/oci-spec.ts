import * as v from 'valibot';

/** The parts of an OCI runtime spec (config.json, version 1) that podvm uses. Others are ignored. */
const text = v.string();
const texts = v.optional(v.nullable(v.array(text)), []);
const table = v.optional(v.nullable(v.record(text, text)), {});
const id = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
const amount = v.optional(v.nullable(v.pipe(v.number(), v.integer())));

const capabilities = v.object({ bounding: texts, effective: texts, permitted: texts, ambient: texts });

export const processSchema = v.object({
  terminal: v.optional(v.boolean(), false),
  consoleSize: v.optional(v.nullable(v.object({ height: id, width: id }))),
  user: v.object({
    uid: v.optional(id, 0),
    gid: v.optional(id, 0),
    additionalGids: v.optional(v.nullable(v.array(id)), []),
  }),
  args: texts,
  env: texts,
  cwd: text,
  capabilities: v.optional(v.nullable(capabilities)),
  noNewPrivileges: v.optional(v.boolean(), false),
  oomScoreAdj: amount,
  apparmorProfile: v.optional(text, ''),
});
export type OciProcess = v.InferOutput<typeof processSchema>;

export const resourcesSchema = v.object({
  memory: v.optional(v.nullable(v.object({ limit: amount }))),
  cpu: v.optional(v.nullable(v.object({ shares: amount, quota: amount, period: amount }))),
  pids: v.optional(v.nullable(v.object({ limit: amount }))),
  unified: table,
  devices: v.optional(
    v.nullable(
      v.array(
        v.object({
          allow: v.boolean(),
          type: v.optional(text, 'a'),
          major: amount,
          minor: amount,
          access: v.optional(text, ''),
        }),
      ),
    ),
    [],
  ),
});
export type OciResources = v.InferOutput<typeof resourcesSchema>;

const mountSchema = v.object({
  destination: text,
  type: v.optional(text, ''),
  source: v.optional(text, ''),
  options: texts,
});
export type OciMount = v.InferOutput<typeof mountSchema>;

const mappings = v.optional(v.nullable(v.array(v.object({ containerID: id, hostID: id, size: id }))), []);

export const specSchema = v.object({
  process: processSchema,
  root: v.optional(v.object({ readonly: v.optional(v.boolean(), false) }), {}),
  hostname: v.optional(text, ''),
  mounts: v.optional(v.nullable(v.array(mountSchema)), []),
  annotations: table,
  linux: v.object({
    namespaces: v.optional(v.nullable(v.array(v.object({ type: text, path: v.optional(text, '') }))), []),
    uidMappings: mappings,
    gidMappings: mappings,
    sysctl: table,
    resources: v.optional(v.nullable(resourcesSchema)),
    devices: v.optional(v.nullable(v.array(v.object({ path: text, type: text, major: amount, minor: amount }))), []),
    cgroupsPath: v.optional(text, ''),
    seccomp: v.optional(v.nullable(v.record(text, v.unknown()))),
    maskedPaths: texts,
    readonlyPaths: texts,
  }),
});
export type OciSpec = v.InferOutput<typeof specSchema>;
