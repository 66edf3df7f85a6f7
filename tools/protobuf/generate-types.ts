import { spawnSync } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { create, fromBinary, fromJsonString, toBinary } from '@bufbuild/protobuf';
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';

/** Types that are made from a descriptor of protobuf messages. */
export interface Schema {
  /** Paths in the repository. */
  readonly descriptor: string;
  readonly outDirectory: string;
}

export const schemas = {
  /** CRI v1. */
  cri: { descriptor: 'src/cri/schema/cri-v1.descriptor.json', outDirectory: 'src/cri/schema' },
  /** Parts of containerd's API module 1.12. The task service has the same messages in its versions 2 and 3: only 2 is here. */
  containerd: {
    descriptor: 'src/shim/schema/containerd.descriptor.json',
    outDirectory: 'src/shim/schema/generated',
  },
} as const satisfies Record<string, Schema>;

export const repo = join(import.meta.dirname, '../..');

/** Descriptions that protobuf-es has itself. */
const wellKnown = 'google/protobuf/';

/**
 * Returns the text of each file of types by its name, made by the plugin of protobuf-es, which reads the descriptors on
 * standard input. Errors: the output of the plugin.
 */
export async function generateTypes({ descriptor }: Schema): Promise<ReadonlyMap<string, string>> {
  const descriptors = await readFile(join(repo, descriptor), 'utf8');
  const { file } = fromJsonString(FileDescriptorSetSchema, descriptors, { ignoreUnknownFields: true });
  const request = create(CodeGeneratorRequestSchema, {
    fileToGenerate: file.map(({ name }) => name).filter((name) => !name.startsWith(wellKnown)),
    protoFile: file,
    // Node strips types and runs the rest: enums must be plain objects, and imports name the file.
    parameter: 'target=ts,import_extension=ts,erasable_syntax=true',
  });
  const plugin = join(dirname(createRequire(import.meta.url).resolve('@bufbuild/protoc-gen-es/package.json')), 'bin');
  const input = toBinary(CodeGeneratorRequestSchema, request);
  const { stdout, stderr, status } = spawnSync(process.execPath, [join(plugin, 'protoc-gen-es')], { input });
  if (status !== 0) throw new Error(`Cannot make types of ${descriptor}: ${stderr.toString()}`);
  const response = fromBinary(CodeGeneratorResponseSchema, stdout);
  if (response.error !== '') throw new Error(`Cannot make types of ${descriptor}: ${response.error}`);
  return new Map(response.file.map(({ name, content }) => [name, content]));
}

/** Writes the types of all schemas. */
if (import.meta.main) {
  for (const schema of Object.values(schemas)) {
    for (const [name, content] of await generateTypes(schema)) {
      const path = join(repo, schema.outDirectory, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, content);
    }
  }
}
