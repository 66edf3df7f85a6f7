/**
 * Imported when a command needs it. The package is CommonJS for Node: in a release, importing it at run time would give a
 * module without names.
 */
export { stringify } from 'yaml';
