/* Copies of columns of arrays, for the CPU's backend, and the version of the compiled library.

   `native.py` loads the library and calls this file's functions; all fields are eight bytes wide, so
   that structures here and there are laid out alike on every machine. */

#include <stdint.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
/* What setuptools' Windows linker asks of an extension module; nothing imports it as one. */
EXPORT void *PyInit__native(void) { return 0; }
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Of the functions and structures of the whole library; `native.py` has the same. */
#define VERSION 9

EXPORT int64_t native_version(void) { return VERSION; }

/* target[row, j] = source[row, columns[j]], all columns in order where `columns` is null, rounded to
   float32. */
typedef struct {
  const double *source;
  int64_t source_stride;
  const int64_t *columns;
  int64_t num_columns;
  float *target;
  int64_t target_stride;
} Cast;

/* Do casts for the rows listed (for the first `count` where `rows` is null). */
EXPORT void native_cast(const Cast *casts, int64_t num_casts, const int64_t *rows, int64_t count) {
  for (const Cast *c = casts; c < casts + num_casts; c++)
    for (int64_t r = 0; r < count; r++) {
      int64_t row = rows ? rows[r] : r;
      const double *from = c->source + row * c->source_stride;
      float *to = c->target + row * c->target_stride;
      if (c->columns)
        for (int64_t j = 0; j < c->num_columns; j++) to[j] = (float)from[c->columns[j]];
      else
        for (int64_t j = 0; j < c->num_columns; j++) to[j] = (float)from[j];
    }
}
