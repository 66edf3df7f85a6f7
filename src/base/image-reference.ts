import { PodvmError } from './errors.ts';
import { printable } from './guest-text.ts';

/** A reference, parsed and completed as Docker and Kubernetes do. */
export interface Reference {
  /** `docker.io`, `localhost:5000`. */
  readonly registry: string;
  /** `library/nginx`. */
  readonly repository: string;
  /** At least one of tag and digest is present. */
  readonly tag?: string;
  readonly digest?: string;
}

const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const host = /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const tagForm = /^\w[\w.-]{0,127}$/;
const digestForm = /^sha256:[0-9a-f]{64}$/;
const maxNameChars = 255;
const idForm = /^(?:sha256:)?[0-9a-f]{64}$/;
/** Docker Hub's other name, which Docker replaces. */
const dockerHubAlias = 'index.docker.io';

/** Errors: `invalid`, naming the wrong part. Source: distribution's reference grammar. */
export function parseReference(text: string): Reference {
  const fail = (reason: string) =>
    new PodvmError('invalid', `Cannot use image reference ${printable(text)}: ${reason}`, {
      fix: 'Write it as NAME:TAG or NAME@sha256:DIGEST, such as docker.io/library/alpine:3.',
    });
  if (isImageId(text)) throw fail('it is the id of an image, not a name');
  const [beforeDigest = '', digest, ...more] = text.split('@');
  if (more.length > 0) throw fail('more than one @');
  if (digest !== undefined && !digestForm.test(digest)) throw fail('a digest is sha256: and 64 lower-case hex digits');
  const colon = beforeDigest.lastIndexOf(':');
  const hasTag = colon > beforeDigest.lastIndexOf('/');
  const name = hasTag ? beforeDigest.slice(0, colon) : beforeDigest;
  const tag = hasTag ? beforeDigest.slice(colon + 1) : undefined;
  if (tag !== undefined && !tagForm.test(tag)) throw fail('a tag is up to 128 letters, digits, _, . and -');
  if (name === '' || name.length > maxNameChars) throw fail(`a name has 1 to ${maxNameChars} characters`);

  const [first = '', ...rest] = name.split('/');
  const namesHost = rest.length > 0 && (/[.:[]/.test(first) || first === 'localhost');
  if (namesHost && !host.test(first)) throw fail(`${printable(first)} is not a valid host`);
  const registry = namesHost && first !== dockerHubAlias ? first : 'docker.io';
  const path = namesHost ? rest : [first, ...rest];
  if (!path.every((part) => component.test(part)))
    throw fail('a name is made of lower-case letters, digits, ., _ and -');
  const repository = registry === 'docker.io' && path.length === 1 ? `library/${path[0]}` : path.join('/');
  return {
    registry,
    repository,
    ...(tag !== undefined || digest === undefined ? { tag: tag ?? 'latest' } : {}),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** The full name without tag and digest. */
export function nameOf(reference: Reference): string {
  return `${reference.registry}/${reference.repository}`;
}

/** The full name with its digest, otherwise with its tag: identifies one image. */
export function formatReference(reference: Reference): string {
  if (reference.digest !== undefined) return `${nameOf(reference)}@${reference.digest}`;
  return `${nameOf(reference)}:${reference.tag ?? 'latest'}`;
}

/** The full name with all given parts: `docker.io/library/nginx:1.27@sha256:...`. */
export function completeReference(reference: Reference): string {
  const { tag, digest } = reference;
  return [
    nameOf(reference),
    ...(tag === undefined ? [] : [`:${tag}`]),
    ...(digest === undefined ? [] : [`@${digest}`]),
  ].join('');
}

/** Whether the text is a full id of an image. An id names a local image, and never one of a registry. */
export function isImageId(text: string): boolean {
  return idForm.test(text);
}

/** Whether the text is only a tag, as in OCI's annotation for names; any other name has a `/` or a `:`. */
export function isTag(text: string): boolean {
  return tagForm.test(text);
}

/** Registries on loopback are contacted over plain HTTP, as in Docker. */
export function isLoopback(reference: Reference): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/.test(reference.registry);
}
