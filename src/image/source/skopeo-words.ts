import type { ErrorKind } from '#base/errors.ts';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

interface Meaning {
  readonly words: RegExp;
  readonly kind: ErrorKind;
  readonly reason: string;
  readonly fix: string;
}

const maxCauseChars = 200;
const maxLineChars = 8192;
const credentialsFix = 'provide them: `podvm login`, imagePullSecrets, or the setting authFile (PODVM_AUTH_FILE).';
const roomFix = 'Free some space or remove images with `podvm image rm`.';

/** Meanings of skopeo's messages; the first match applies. */
const meanings: readonly Meaning[] = [
  {
    words: /^(?:bwrap|setpriv|prlimit): /,
    kind: 'failedPrecondition',
    reason: 'the jail for skopeo cannot be made',
    fix: 'Run `podvm doctor`: the host must allow user namespaces.',
  },
  {
    words: /server gave HTTP response to HTTPS client/,
    kind: 'unavailable',
    reason: 'the registry speaks plain HTTP, which is not allowed',
    fix: 'Allow it with --insecure, or with `insecure = true` in /etc/containers/registries.conf.',
  },
  {
    words: /x509|certificate|tls: /i,
    kind: 'unavailable',
    reason: "the registry's certificate is not trusted",
    fix: 'Put its CA into /etc/containers/certs.d/<registry>/ca.crt, or use --insecure.',
  },
  {
    words: /requested access to the resource is denied/i,
    kind: 'denied',
    reason: 'there is no such image, or it requires credentials',
    fix: `Check the name, or ${credentialsFix}`,
  },
  {
    words: /unauthorized|authentication required|access denied|denied: |invalid username\/password/i,
    kind: 'denied',
    reason: 'the registry does not accept the credentials, or requires some',
    fix: `Check the credentials, or ${credentialsFix}`,
  },
  {
    words: /no space left|disk quota exceeded/i,
    kind: 'exhausted',
    reason: 'the disk is full',
    fix: roomFix,
  },
  {
    words: /no such host|connection refused|i\/o timeout|no route to host|network is unreachable|server misbehaving/i,
    kind: 'unavailable',
    reason: 'the registry does not answer',
    fix: 'Check the name of the registry and the network.',
  },
  {
    words: /no image found in .*(?:index|list) for architecture/i,
    kind: 'unsupported',
    reason: 'there is no image for this machine',
    fix: 'Use an image built for this machine.',
  },
  {
    words: /rejected by policy|signature|no policy\.json file found|policy\.json/i,
    kind: 'denied',
    reason: "this machine's signature policy refuses it",
    fix: 'See /etc/containers/policy.json.',
  },
  {
    words: /unexpected EOF|: EOF$|connection reset by peer|broken pipe|http2: |stream error/,
    kind: 'unavailable',
    reason: 'the registry ended the connection in the middle of an answer',
    fix: 'Try again; if it happens again, check the registry and the network to it.',
  },
  {
    words: /invalid status code from registry 5\d\d|received unexpected HTTP status: 5\d\d/,
    kind: 'unavailable',
    reason: 'the registry reports an internal error',
    fix: "Try again later; the registry's log says why.",
  },
  {
    words: /too many requests|toomanyrequests/i,
    kind: 'unavailable',
    reason: 'the registry limits requests, and refused this one',
    fix: 'Try again later, or provide credentials: many registries then allow more.',
  },
  {
    words: /digest|did not match|checksum|short read|corrupt/i,
    kind: 'corrupt',
    reason: 'what arrived does not match its digest',
    fix: 'Try again; if that does not help, push the image again: the registry has a damaged one.',
  },
  {
    words: /manifest unknown|name unknown|not found|blob unknown|NAME_UNKNOWN/i,
    kind: 'notFound',
    reason: 'there is no such image',
    fix: 'Check name and tag.',
  },
  {
    words: /registries\.conf|loading registries|auth\.json|authfile|credentials/i,
    kind: 'failedPrecondition',
    reason: 'a file of its configuration is wrong',
    fix: 'Check registries.conf and the auth file.',
  },
];

/** Explains skopeo's standard error in one sentence; skopeo's own message is the cause. `act` completes `Cannot`. */
export function explainSkopeo(act: string, stderr: string): PodvmError {
  const words = lastWords(stderr);
  const meaning = meanings.find((one) => one.words.test(words));
  return new PodvmError(meaning?.kind ?? 'internal', `Cannot ${act}: ${meaning?.reason ?? 'skopeo failed'}`, {
    cause: new Error(briefly(words)),
    ...(meaning === undefined ? {} : { fix: meaning.fix }),
  });
}

/** The text of the last line, which skopeo writes as `time="..." level=fatal msg="..."`. */
function lastWords(stderr: string): string {
  const last = (stderr.trimEnd().split('\n').at(-1) ?? '').slice(-maxLineChars);
  const quoted = /\bmsg="((?:[^"\\]|\\.)*)"?/.exec(last)?.[1];
  return quoted === undefined ? last : quoted.replaceAll(/\\+n/g, ' ').replaceAll(/\\+"/g, '"');
}

/** Shortens a message: Go writes the cause last, after colons, and the beginning repeats the image's name. */
function briefly(words: string): string {
  const parts = words.split(': ').filter((part, at, all) => part !== all[at - 1]);
  const [last = '', ...before] = parts.slice(-3).toReversed();
  const whole = before.toReversed().concat(last).join(': ');
  return printable(whole.length <= maxCauseChars ? whole : last, maxCauseChars);
}
