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

/** Logins of a user for the registries of some images. */
export interface FoundLogins {
  readonly logins: Readonly<RegistryLogins>;
  /** Sentences about logins that cannot be used. */
  readonly warnings: readonly string[];
}

/** A login to write for the user. */
export interface LoginWish {
  /** `quay.io`, or a part of it: `quay.io/team`. */
  readonly registry: string;
  /** Undefined: skopeo asks the terminal for it. */
  readonly username?: string;
  /** Standard input is the password; otherwise skopeo asks the terminal. */
  readonly passwordStdin: boolean;
  /** Replaces the user's own file; an absolute path. */
  readonly authfile?: string;
  /** Allows plain HTTP and any certificate. Always on for registries on loopback. */
  readonly insecure: boolean;
}

/** A login to remove. */
export interface LogoutWish {
  /** Undefined: all. */
  readonly registry?: string;
  readonly authfile?: string;
}
