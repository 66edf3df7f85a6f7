/** To which connections in a pod's netns are redirected. Nothing else listens there: the pod's own ports are in its machine. */
export const forwardedTo = 1;
