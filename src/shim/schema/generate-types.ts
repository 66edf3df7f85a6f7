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
import { PodvmError } from '#base/errors.ts';

/**
 * Makes the types in `generated/` out of `containerd.descriptor.json` (parts of containerd's API module 1.12), by the
 * plugin of protobuf-es and nothing else. Run this file after the descriptor was replaced; a test compares what it makes
 * with what is there. The task service has the same messages in its versions 2 and 3, so only version 2 is here.
 */
const directory = import.meta.dirname;
export const generatedDirectory = join(directory, 'generated');

/** Descriptions that protobuf-es has itself. */
const wellKnown = 'google/protobuf/';

/** The text of each file in `generated/`, by its name. Errors: `internal` with the plugin's words. */
export async function generateTypes(): Promise<ReadonlyMap<string, string>> {
  const descriptors = await readFile(join(directory, 'containerd.descriptor.json'), 'utf8');
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
  if (status !== 0) throw new PodvmError('internal', `Cannot make the types of containerd: ${stderr.toString()}`);
  const response = fromBinary(CodeGeneratorResponseSchema, stdout);
  if (response.error !== '') throw new PodvmError('internal', `Cannot make the types of containerd: ${response.error}`);
  return new Map(response.file.map(({ name, content }) => [name, content]));
}

if (import.meta.main) {
  for (const [name, content] of await generateTypes()) {
    const path = join(generatedDirectory, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
}
