// Threads take blocks and give them back, in the order of nested tasks and in others: no two own the same memory.
#include "workspace.c"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 2000
#define MOST 12

static void Check(int holds, const char* what) {
  if (holds) return;
  printf("%s\n", what);
  _exit(1);
}

static void* Task(void* argument) {
  unsigned seed = (unsigned)(size_t)argument + 1;
  for (int round = 0; round < ROUNDS; ++round) {
    unsigned char* taken[MOST];
    size_t sizes[MOST];
    int count = 1 + rand_r(&seed) % MOST;
    for (int i = 0; i < count; ++i) {
      sizes[i] = rand_r(&seed) % 4 == 0 ? (size_t)rand_r(&seed) % 200000 : (size_t)rand_r(&seed) % 5000;
      taken[i] = __TVMBackendAllocWorkspace(1, 0, sizes[i], 2, 32);
      Check(taken[i] != NULL && (size_t)taken[i] % ALIGNMENT == 0, "no aligned memory");
      memset(taken[i], (int)((size_t)argument * MOST) + i, sizes[i]);
    }
    for (int i = 0; i < count; ++i) {
      for (size_t j = 0; j < sizes[i]; ++j) {
        Check(taken[i][j] == (unsigned char)((size_t)argument * MOST + (size_t)i), "somebody else wrote here");
      }
    }
    int forward = rand_r(&seed) % 2;
    for (int i = 0; i < count; ++i) {
      Check(__TVMBackendFreeWorkspace(1, 0, taken[forward ? i : count - 1 - i]) == 0, "not given back");
    }
  }
  return NULL;
}

int main(void) {
  void* first = __TVMBackendAllocWorkspace(1, 0, 1000, 2, 32);
  __TVMBackendFreeWorkspace(1, 0, first);
  Check(__TVMBackendAllocWorkspace(1, 0, 900, 2, 32) == first, "a block is not used again");
  Check(__TVMBackendAllocWorkspace(1, 0, 900, 2, 32) != first, "a block is given out twice");
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, Task, (void*)i);
  for (size_t i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  // Threads that have ended keep nothing; this one has what it began with.
  Check(all.next == own && own->next == &all, "an ended thread keeps its blocks");
  return 0;
}
