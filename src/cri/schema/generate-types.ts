import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { create, fromBinary, fromJsonString, toBinary } from '@bufbuild/protobuf';
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import { spawnSync } from 'node:child_process';
import { PodvmError } from '#base/errors.ts';

/**
 * Makes `api_pb.ts` out of `cri-v1.descriptor.json` (CRI v1's wire schema), by the plugin of protobuf-es and nothing
 * else: a plugin reads the descriptors on standard input. Run this file after the descriptor was replaced; a test
 * compares what it makes with what is there.
 */
const directory = import.meta.dirname;
export const typesPath = join(directory, 'api_pb.ts');

/** The text that `api_pb.ts` must have. Errors: `internal` with the plugin's words. */
export async function generateTypes(): Promise<string> {
  const descriptors = await readFile(join(directory, 'cri-v1.descriptor.json'), 'utf8');
  const { file } = fromJsonString(FileDescriptorSetSchema, descriptors, { ignoreUnknownFields: true });
  const request = create(CodeGeneratorRequestSchema, {
    fileToGenerate: ['api.proto'],
    protoFile: file,
    // Node strips types and runs the rest: enums must be plain objects.
    parameter: 'target=ts,import_extension=js,erasable_syntax=true',
  });
  const plugin = join(dirname(createRequire(import.meta.url).resolve('@bufbuild/protoc-gen-es/package.json')), 'bin');
  const input = toBinary(CodeGeneratorRequestSchema, request);
  const { stdout, stderr, status } = spawnSync(process.execPath, [join(plugin, 'protoc-gen-es')], { input });
  if (status !== 0) throw new PodvmError('internal', `Cannot make CRI's types: ${stderr.toString()}`);
  const response = fromBinary(CodeGeneratorResponseSchema, stdout);
  const [only] = response.file;
  if (response.error !== '' || only === undefined) {
    throw new PodvmError('internal', `Cannot make CRI's types: ${response.error}`);
  }
  return only.content;
}

if (import.meta.main) await writeFile(typesPath, await generateTypes());
