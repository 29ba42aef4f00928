/* What runs in containers, in C: an ordinary program. Its first argument says what to do; it does as program.go does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int copy(int from) {
    static char part[1 << 16];
    ssize_t got;
    while ((got = read(from, part, sizeof part)) > 0)
        for (ssize_t at = 0, put; at < got; at += put)
            if ((put = write(1, part + at, got - at)) <= 0) return 1;
    return got < 0;
}

int main(int argc, char **argv) {
    const char *task = argc > 1 ? argv[1] : "";
    if (!strcmp(task, "say")) {
        for (int at = 2; at < argc; at++) printf("argument: %s\n", argv[at]);
        const char *quality = getenv("QUALITY");
        printf("QUALITY: %s\n", quality ? quality : "none");
        return 0;
    }
    if (!strcmp(task, "cat")) return copy(0);
    if (!strcmp(task, "read")) {
        FILE *file = fopen(argv[2], "r");
        if (!file) {
            perror(argv[2]);
            return 2;
        }
        return copy(fileno(file));
    }
    if (!strcmp(task, "write")) {
        FILE *file = fopen(argv[2], "w");
        return !file || fputs(argv[3], file) < 0 || fclose(file);
    }
    fprintf(stderr, "leaving with %s\n", argv[2]);
    exit(atoi(argv[2]));
}
