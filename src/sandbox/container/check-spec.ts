import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { etcHostsOf } from './etc-files.ts';
import type { ContainerSpec, SandboxSpec } from '../sandbox.ts';

/**
 * Limits of a guest, checked before a call to it: the agent's errors would be in terms of its schema
 * (`wire/messages.ts`).
 */
const maxHostnameChars = 64;
const maxPathChars = 4096;
const maxMounts = 4096;
const maxSupplementalGroups = 4096;
const maxSysctls = 4096;
const maxSysctlChars = 4096;
const maxDnsChars = 1024;
const maxDnsWords = 256;
/** Maximum bytes of hostAliases in /etc/hosts; the wire accepts twice that, for the other lines. */
const maxHostsBytes = 512 * 1024;

/** Errors: `invalid`, naming what the guest does not support. */
export function checkSandboxSpec(what: string, spec: SandboxSpec): void {
  const refuse = refusalsOf(what);
  if (!/^[\x21-\x7e]+$/.test(spec.hostname) || spec.hostname.length > maxHostnameChars) {
    throw refuse(
      `its hostname must have 1 to ${maxHostnameChars} characters, all of them visible ASCII`,
      spec.hostname,
    );
  }
  const sysctls = Object.entries(spec.sysctls);
  if (sysctls.length > maxSysctls) throw refuse(`it has at most ${maxSysctls} sysctls`, sysctls.length);
  for (const [name, value] of sysctls) {
    const isName = /^[A-Za-z0-9_.-]{1,253}$/.test(name) && !name.includes('..');
    if (!isName) throw refuse('a sysctl must have a name with dots, such as net.core.somaxconn', name);
    if (value.length > maxSysctlChars) {
      throw refuse(`the value of sysctl ${name} has at most ${maxSysctlChars} characters`, value.length);
    }
  }
  for (const [name, words] of Object.entries(wordsOfDns(spec))) {
    if (words.length > maxDnsWords) throw refuse(`its DNS ${name} are at most ${maxDnsWords}`, words.length);
    const odd = words.find((word) => word.length > maxDnsChars || /[\p{Cc}\s]/u.test(word));
    if (odd === undefined) continue;
    throw refuse(`each of its DNS ${name} must be one word of at most ${maxDnsChars} characters`, odd);
  }
  const hostsBytes = Buffer.byteLength(etcHostsOf(spec, []));
  if (hostsBytes > maxHostsBytes) {
    throw refuse(`its hostAliases make /etc/hosts larger than ${maxHostsBytes} bytes`, hostsBytes);
  }
}

const wordsOfDns = ({ dns: { nameservers, searches, options } }: SandboxSpec) => ({ nameservers, searches, options });

/** Errors: `invalid`, naming what the guest does not support. */
export function checkContainerSpec(spec: ContainerSpec): void {
  const refuse = refusalsOf(`container ${spec.name}`);
  const { mounts, devices = [], security, terminationMessagePath } = spec;
  if (mounts.length > maxMounts) throw refuse(`it has at most ${maxMounts} mounts`, mounts.length);
  if (devices.length > maxMounts) throw refuse(`it has at most ${maxMounts} devices`, devices.length);
  const absolute = {
    'a mount': mounts.map(({ mountPath }) => mountPath),
    'a device': devices.map(({ devicePath }) => devicePath),
    'a masked path': security.maskedPaths ?? [],
    'a read-only path': security.readonlyPaths ?? [],
    'the termination message': terminationMessagePath === undefined ? [] : [terminationMessagePath],
  };
  for (const [name, paths] of Object.entries(absolute)) {
    if (paths.length > maxMounts) throw refuse(`it has at most ${maxMounts} of ${name}`, paths.length);
    const odd = paths.find((path) => !path.startsWith('/') || !isPath(path));
    if (odd !== undefined)
      throw refuse(`${name} must be at an absolute path of at most ${maxPathChars} characters`, odd);
  }
  for (const { mountPath, subPath } of mounts) {
    if (subPath === undefined || (isPath(subPath) && !subPath.startsWith('/') && !subPath.split('/').includes('..')))
      continue;
    throw refuse(
      `the sub-path of ${printable(mountPath, 80)} must be relative, without ".." and of at most ${maxPathChars} characters`,
      subPath,
    );
  }
  const groups = security.supplementalGroups.length;
  if (groups > maxSupplementalGroups) {
    throw refuse(`it has at most ${maxSupplementalGroups} supplemental groups`, groups);
  }
}

const isPath = (path: string): boolean => path !== '' && path.length <= maxPathChars && !path.includes('\0');

const refusalsOf = (what: string) => (why: string, got: string | number) =>
  new PodvmError('invalid', `Cannot run ${what}: ${why}, got ${printable(JSON.stringify(got), 80)}`);
