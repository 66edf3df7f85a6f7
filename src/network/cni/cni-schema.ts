import * as v from 'valibot';

/** CNI's file and answer formats (spec 1.0 and 1.1); fields that are not read here are passed on unchanged. */

/** Maximum bytes of a plugin's answer, for each stream. Real answers are under 4 KiB. */
export const maxAnswerBytes = 1024 * 1024;

/** Maximum bytes of one configuration file. */
export const maxConflistBytes = 1024 * 1024;

/** Versions whose result has `interfaces` and `ips`, oldest first. */
export const knownVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

/** Spec, "Section 1": network names and plugin types are file names. */
const name = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/));

const pluginSchema = v.looseObject({
  type: name,
  capabilities: v.optional(v.record(v.string(), v.boolean())),
});

/** A boolean, or its name as a string, which other runtimes accept too. */
const flag = v.union([v.boolean(), v.picklist(['true', 'false'])]);

export const conflistSchema = v.looseObject({
  cniVersion: v.picklist(knownVersions),
  name,
  plugins: v.pipe(v.array(pluginSchema), v.minLength(1), v.maxLength(32)),
  /** Disables CHECK. */
  disableCheck: v.optional(flag),
  /** Disables GC. */
  disableGC: v.optional(flag),
});
/** A list of plugins, run in order. */
export type Conflist = v.InferOutput<typeof conflistSchema>;
/** A file that names a plugin instead of a list. */
export const singleSchema = v.looseObject({ ...pluginSchema.entries, cniVersion: v.string(), name });
export type PluginConfig = v.InferOutput<typeof pluginSchema>;

const text = v.pipe(v.string(), v.maxLength(256));
const list = <T extends v.GenericSchema>(item: T) => v.optional(v.nullable(v.pipe(v.array(item), v.maxLength(256))));

export const resultSchema = v.looseObject({
  cniVersion: v.optional(v.string()),
  interfaces: list(v.looseObject({ name: text, mac: v.optional(text), sandbox: v.optional(v.string()) })),
  ips: list(v.looseObject({ address: text, gateway: v.optional(text), interface: v.optional(v.nullable(v.number())) })),
  dns: v.optional(
    v.nullable(
      v.looseObject({ nameservers: list(text), domain: v.optional(text), search: list(text), options: list(text) }),
    ),
  ),
});
/** The result of a chain's ADD. */
export type CniResult = v.InferOutput<typeof resultSchema>;

export const errorSchema = v.looseObject({
  code: v.pipe(v.number(), v.integer()),
  msg: v.string(),
  details: v.optional(v.string()),
});
