// Memory that a task of a loop needs while it runs: linked into a compiled model's library in place of TVM's pool.
//
// A task of a large image takes a microsecond, and asks for its buffers anew. Each thread keeps what its tasks give
// back, a few blocks, and hands them out again without a lock or a search.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Blocks that a thread keeps; code that needs more at once gets the others from the system.
#define MOST_BLOCKS 8
// Buffers begin at pages, as in TVM's pool: where they lie in the caches does not change from run to run.
#define ALIGNMENT 4096

typedef struct {
  void* memory;
  size_t size;
  int used;
} Block;

// The blocks of one thread, in a list of all threads' so that unloading the library frees them.
typedef struct Shelf {
  Block blocks[MOST_BLOCKS];
  struct Shelf *next, *previous;
} Shelf;

static _Thread_local Shelf* own;
static pthread_key_t of_ended_threads;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Shelf all = {.next = &all, .previous = &all};

static void FreeShelf(void* argument) {
  own = NULL;
  Shelf* shelf = argument;
  pthread_mutex_lock(&mutex);
  shelf->previous->next = shelf->next;
  shelf->next->previous = shelf->previous;
  pthread_mutex_unlock(&mutex);
  for (int i = 0; i < MOST_BLOCKS; ++i) free(shelf->blocks[i].memory);
  free(shelf);
}

// A forked child has one thread; another one of its parent's may have held the mutex.
static void InChild(void) { pthread_mutex_init(&mutex, NULL); }

__attribute__((constructor)) static void Load(void) {
  pthread_key_create(&of_ended_threads, FreeShelf);
  pthread_atfork(NULL, NULL, InChild);
}

__attribute__((destructor)) static void Unload(void) {
  pthread_key_delete(of_ended_threads);
  while (all.next != &all) FreeShelf(all.next);
}

static Shelf* NewShelf(void) {
  Shelf* shelf = calloc(1, sizeof(Shelf));
  if (shelf == NULL) return NULL;
  pthread_mutex_lock(&mutex);
  shelf->next = all.next;
  shelf->previous = &all;
  all.next->previous = shelf;
  all.next = shelf;
  pthread_mutex_unlock(&mutex);
  pthread_setspecific(of_ended_threads, shelf);
  return own = shelf;
}

static void* Allocate(size_t size) {
  return aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static void* Take(int device_type, int device_id, uint64_t size, int type_code, int type_bits) {
  (void)device_type, (void)device_id, (void)type_code, (void)type_bits;
  Shelf* shelf = own != NULL ? own : NewShelf();
  if (size == 0) size = 1;
  if (shelf == NULL) return Allocate(size);
  Block* smaller = NULL;
  for (int i = 0; i < MOST_BLOCKS; ++i) {
    Block* block = &shelf->blocks[i];
    if (block->used) continue;
    if (block->size >= size) {
      block->used = 1;
      return block->memory;
    }
    smaller = block;
  }
  void* memory = Allocate(size);
  if (smaller != NULL && memory != NULL) {
    free(smaller->memory);
    *smaller = (Block){memory, size, 1};
  }
  return memory;
}

static int GiveBack(int device_type, int device_id, void* memory) {
  (void)device_type, (void)device_id;
  for (int i = 0; own != NULL && i < MOST_BLOCKS; ++i) {
    if (own->blocks[i].memory == memory) {
      own->blocks[i].used = 0;
      return 0;
    }
  }
  free(memory);
  return 0;
}

// The variables through which generated code finds its pool; see launch.c for why ours stand for all of them.
__attribute__((visibility("hidden"))) void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = Take;
__attribute__((visibility("hidden"))) int (*__TVMBackendFreeWorkspace)(int, int, void*) = GiveBack;
