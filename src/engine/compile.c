/* Build-time tool that compiles a JavaScript bundle to bytecode: `compile bundle.js agent.bytecode` */
#include <quickjs/quickjs.h>
#include <stdio.h>
#include <stdlib.h>

static char *read_all(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    long size;

    if (file && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
        text = malloc((size_t)size + 1);
        if (text && fread(text, 1, (size_t)size, file) == (size_t)size) text[*length = (size_t)size] = '\0';
    }
    if (file) fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    JSRuntime *rt = JS_NewRuntime();
    JSContext *ctx = JS_NewContext(rt);
    size_t length = 0, size = 0;
    char *text = argc == 3 ? read_all(argv[1], &length) : NULL;
    FILE *file;

    if (!text) return fprintf(stderr, "usage: compile BUNDLE BYTECODE\n"), 64;
    JS_SetStripInfo(rt, JS_STRIP_SOURCE); /* line numbers stay, for stacks */
    JSValue code = JS_Eval(ctx, text, length, "agent.js", JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY | JS_EVAL_FLAG_STRICT);
    if (JS_IsException(code)) {
        JSValue error = JS_GetException(ctx), stack = JS_GetPropertyStr(ctx, error, "stack");
        fprintf(stderr, "%s\n%s\n", JS_ToCString(ctx, error), JS_ToCString(ctx, stack));
        return 65;
    }
    uint8_t *bytes = JS_WriteObject(ctx, &size, code, JS_WRITE_OBJ_BYTECODE);
    file = bytes ? fopen(argv[2], "wb") : NULL;
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) return fprintf(stderr, "cannot write %s\n", argv[2]), 74;
    return 0;
}
