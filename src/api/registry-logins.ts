import * as v from 'valibot';

/** Limit for one request, which may be a run of many images. */
const maxLogins = 256;
/** Limit of all texts together. Tokens of some registries have several Ki. */
const maxChars = 1024 * 1024;

// Its own messages: those of valibot quote the text that is wrong, which may be a password.
const text = (name: string) => v.pipe(v.string(`${name} must be text`), v.maxLength(64 * 1024, `${name} is too long`));

const loginSchema = v.strictObject(
  {
    /** `quay.io` or a part of it: `quay.io/team`. */
    registry: text('registry'),
    username: v.exactOptional(text('username')),
    password: v.exactOptional(text('password')),
    /** Used instead of name and password. */
    identityToken: v.exactOptional(text('identityToken')),
  },
  'must have a registry, and username with password or an identityToken',
);
type Login = v.InferOutput<typeof loginSchema>;

const charsOf = ({ registry, username = '', password = '', identityToken = '' }: Login) =>
  registry.length + username.length + password.length + identityToken.length;

/** The client's own logins, for the registries of the images that its request names. */
export const registryLoginsSchema = v.pipe(
  v.array(loginSchema, 'must be a list'),
  v.maxLength(maxLogins, `must have at most ${maxLogins} logins`),
  v.check(
    (logins) => logins.reduce((sum, login) => sum + charsOf(login), 0) <= maxChars,
    `must have at most ${maxChars} characters in all`,
  ),
);
export type RegistryLogins = v.InferOutput<typeof registryLoginsSchema>;
