import * as v from 'valibot';
import type { RegistryLogin } from '#sandbox/sandbox.ts';

/** Credentials for one registry, as in Docker's config.json. */
const entry = v.object({
  username: v.nullish(v.string(), ''),
  password: v.nullish(v.string(), ''),
  auth: v.nullish(v.string(), ''),
  identitytoken: v.nullish(v.string(), ''),
});
const entries = v.record(v.string(), entry);
const config = v.object({ auths: v.nullish(entries, {}) });
const maxLogins = 1000;

/** Returns the logins of Docker's config.json, or of the older form that is only its `auths`; undefined for others. */
export function dockerLogins(text: string, hasAuths: boolean): readonly RegistryLogin[] | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined; // the error names the Secret; its text is secret
  }
  const parsed = hasAuths
    ? v.safeParse(
        v.pipe(
          config,
          v.transform(({ auths }) => auths),
        ),
        json,
      )
    : v.safeParse(entries, json);
  if (!parsed.success) return undefined;
  return Object.entries(parsed.output)
    .slice(0, maxLogins)
    .flatMap(([registry, { username, password, auth, identitytoken }]): readonly RegistryLogin[] => {
      const decoded = Buffer.from(auth, 'base64').toString('utf8');
      const colon = decoded.indexOf(':');
      if (identitytoken !== '') return [{ registry, identityToken: identitytoken }];
      if (colon > 0) return [{ registry, username: decoded.slice(0, colon), password: decoded.slice(colon + 1) }];
      return username === '' ? [] : [{ registry, username, password }];
    });
}
