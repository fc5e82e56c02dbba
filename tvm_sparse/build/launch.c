// Runs the parallel loops of a compiled model: linked into its library in place of TVM's launcher.
//
// A loop is cut into chunks of iterations. Each thread owns a contiguous block of them, the same one in every loop of
// that many iterations, so that its cache holds what it reads next; a thread that has done its own takes chunks from
// the end of the longest block that is left. The caller works too and never waits for a thread that has not started: it
// takes that thread's chunks. So a core that another process slows down, or takes away, does less; a worker that lost
// its core in the middle of a chunk finishes it on the caller's (Linux). What is computed does not depend on who
// computes it.
//
// With TVM_BIND_THREADS=1 each worker stays on a core of its own; the caller, a thread of the program, goes where it may.
//
// Idle workers look for work for a short time, then sleep. One loop at a time has the workers; a loop inside of a loop,
// or one that another thread of the program starts meanwhile, runs on the thread that starts it.
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <tvm/ffi/c_api.h>

#include "cores.h"
#include "placing.h"
#include "waiting.h"

#define MAX_THREADS 256
// A loop of more iterations than this for each thread is cut into chunks of several.
#define CHUNKS_PER_THREAD 32
// How long an idle thread looks for work before it sleeps. To wake it costs a few microseconds of the caller's time and
// ten times that until it works; the serial parts of a model between two loops are shorter than this.
#define SPIN_NANOSECONDS 60000

// What TVM's generated code passes to each task of a loop, and the task itself.
typedef struct {
  void* sync_handle;
  int32_t num_task;
} ParallelGroupEnv;
typedef int (*ParallelLambda)(int task_id, ParallelGroupEnv* environment, void* closure);

// Chunks [next, end) that are left of a thread's block, and the launch that they belong to, in one word so that one
// compare-and-swap takes a chunk of that launch or none.
typedef uint64_t Block;

static Block MakeBlock(uint32_t launch, uint32_t next, uint32_t end) {
  return (uint64_t)launch << 32 | (uint64_t)next << 16 | end;
}
static uint32_t LaunchOf(Block block) { return (uint32_t)(block >> 32); }
static uint32_t NextOf(Block block) { return (uint32_t)(block >> 16) & 0xffff; }
static uint32_t EndOf(Block block) { return (uint32_t)block & 0xffff; }

typedef struct {
  _Alignas(CACHE_LINE) _Atomic(Block) block;  // block 0 is the caller's, block i + 1 worker i's
} Slot;

static struct {
  // Set while a launch has the workers.
  _Alignas(CACHE_LINE) atomic_uint busy;
  // Written by the launch that has the workers, read by those who have taken one of its chunks.
  _Alignas(CACHE_LINE) ParallelLambda lambda;
  void* closure;
  uint32_t chunks;
  uint32_t launch;
  uint32_t workers;  // created so far
  _Atomic(uint32_t) threads;
  atomic_uint closed;
  // Chunks that are done; the caller sleeps on it.
  _Alignas(CACHE_LINE) atomic_uint done;
  atomic_uint caller_asleep;
  atomic_uint failed;
  Slot slots[MAX_THREADS];
  Worker worker[MAX_THREADS];
} pool;

// Of the thread that starts loops: threads that its loops may use (0: not set), iterations of the next loop.
static _Thread_local uint32_t requested_threads;
static _Thread_local int64_t announced_extent;

// --- working ---------------------------------------------------------------------------------------------------------

// Takes the first chunk of a block, or the last if it is another thread's; -1 if none of this launch is left.
static int Take(uint32_t slot, uint32_t launch, int last) {
  _Atomic(Block)* word = &pool.slots[slot].block;
  Block block = atomic_load_explicit(word, memory_order_acquire);
  while (LaunchOf(block) == launch && NextOf(block) < EndOf(block)) {
    uint32_t next = NextOf(block), end = EndOf(block);
    Block rest = last ? MakeBlock(launch, next, end - 1) : MakeBlock(launch, next + 1, end);
    if (atomic_compare_exchange_weak_explicit(word, &block, rest, memory_order_acq_rel, memory_order_acquire)) {
      return (int)(last ? end - 1 : next);
    }
  }
  return -1;
}

// The slot with most chunks left, or -1.
static int LongestBlock(uint32_t launch, uint32_t threads) {
  int longest = -1;
  uint32_t most = 0;
  for (uint32_t slot = 0; slot < threads; ++slot) {
    Block block = atomic_load_explicit(&pool.slots[slot].block, memory_order_relaxed);
    uint32_t left = EndOf(block) - NextOf(block);
    if (LaunchOf(block) == launch && left > most) {
      most = left;
      longest = (int)slot;
    }
  }
  return longest;
}

// Does chunks of a launch while there are any. Returns whether one of them failed.
static int Work(uint32_t own, uint32_t launch) {
  uint32_t taken = 0, total = 0;
  int failed = 0;
  for (int slot = (int)own; slot >= 0;) {
    int chunk = Take((uint32_t)slot, launch, slot != (int)own);
    if (chunk >= 0) {
      // The launch lasts until this chunk is done: only now its fields are sure to be this launch's.
      total = pool.chunks;
      ParallelGroupEnv environment = {NULL, (int32_t)total};
      if (pool.lambda(chunk, &environment, pool.closure) != 0) failed = 1;
      ++taken;
    }
    if (chunk < 0 || slot != (int)own) {
      slot = LongestBlock(launch, atomic_load_explicit(&pool.threads, memory_order_relaxed));
    }
  }
  if (failed) atomic_store_explicit(&pool.failed, 1, memory_order_relaxed);
  if (taken > 0 && atomic_fetch_add(&pool.done, taken) + taken == total && own != 0 &&
      atomic_load(&pool.caller_asleep)) {
    Wake(&pool.done);
  }
  return failed;
}

static void* RunWorker(void* argument) {
  Worker* self = argument;
  uint32_t own = (uint32_t)(self - pool.worker) + 1;
  uint32_t seen = self->first_seen;
  for (;;) {
    uint32_t last = seen;
    // On the caller's core it makes room at once.
    int64_t patience = atomic_load_explicit(&self->lent, memory_order_relaxed) ? 0 : SPIN_NANOSECONDS;
    seen = LookForChange(&self->posted, last, patience);
    if (seen == last) seen = SleepUntilChange(&self->posted, last, &self->asleep);
    if (atomic_load(&pool.closed)) return NULL;
    Return(self);
    atomic_store_explicit(&self->seen, seen, memory_order_relaxed);
    atomic_store(&self->working, 1);
    Work(own, seen);
    atomic_store(&self->working, 0);
  }
}

static void Post(Worker* worker, uint32_t launch) {
  atomic_store(&worker->posted, launch);
  if (atomic_load(&worker->asleep)) Wake(&worker->posted);
}

// --- threads ---------------------------------------------------------------------------------------------------------

// A forked child has none of its parent's workers, nor a launch that was under way.
static void ForgetWorkers(void) {
  ForgetSleepers();
  pool.workers = 0;
  atomic_store(&pool.caller_asleep, 0);
  atomic_store(&pool.busy, 0);
}

// Creates workers up to a count, as far as the system allows. The caller has the pool.
static void CreateWorkers(uint32_t count) {
  static int registered;
  if (pool.workers >= count) return;
  if (!registered) registered = pthread_atfork(NULL, NULL, ForgetWorkers) == 0;
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool.workers < count) {
    Worker* worker = &pool.worker[pool.workers];
    atomic_store(&worker->asleep, 0);
    atomic_store(&worker->seen, pool.launch);
    atomic_store(&worker->working, 0);
    atomic_store(&worker->lent, 0);
#if defined(__linux__)
    atomic_store(&worker->moved, 0);
#endif
    worker->first_seen = atomic_load(&worker->posted);
    if (pthread_create(&worker->thread, NULL, RunWorker, worker) != 0) break;
    ++pool.workers;
  }
  BindWorkers(pool.worker, pool.workers);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// Before the library is unloaded, or the program ends, no thread may be left in its code.
__attribute__((destructor)) static void JoinWorkers(void) {
  atomic_store(&pool.closed, 1);
  for (uint32_t i = 0; i < pool.workers; ++i) Post(&pool.worker[i], atomic_load(&pool.worker[i].posted) + 1);
  for (uint32_t i = 0; i < pool.workers; ++i) pthread_join(pool.worker[i].thread, NULL);
  pool.workers = 0;
}

static uint32_t Clamp(int64_t count) { return (uint32_t)(count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count); }

// Threads of a caller that has not said how many: as the environment says, else one for each core that it may use.
static uint32_t DefaultThreads(void) {
  static atomic_uint known;
  uint32_t threads = atomic_load_explicit(&known, memory_order_relaxed);
  if (threads == 0) {
    const char* names[] = {"TVM_NUM_THREADS", "OMP_NUM_THREADS"};
    for (size_t i = 0; i < 2 && threads == 0; ++i) {
      const char* text = getenv(names[i]);
      if (text != NULL && atoi(text) > 0) threads = Clamp(atoi(text));
    }
    if (threads == 0) threads = Clamp(CountCores());
    atomic_store_explicit(&known, threads, memory_order_relaxed);
  }
  return threads;
}

// --- what compiled code and programs call ------------------------------------------------------------------------------

// Compiled code calls this before each parallel loop, since TVM tells a launcher only the loop's body.
__attribute__((visibility("hidden"))) int32_t tvm_sparse_announce_loop(int64_t extent) {
  announced_extent = extent;
  return 0;
}

static int Launch(ParallelLambda lambda, void* closure, int num_task) {
  int64_t extent = announced_extent;
  announced_extent = 0;
  uint32_t threads = requested_threads != 0 ? requested_threads : DefaultThreads();
  // A loop that was not announced may have any number of iterations.
  if (extent <= 0) extent = num_task > 0 ? num_task : (int64_t)threads * CHUNKS_PER_THREAD;
  if (extent < threads) threads = (uint32_t)extent;
  if (threads == 1 || atomic_exchange_explicit(&pool.busy, 1, memory_order_acquire) != 0) {
    ParallelGroupEnv environment = {NULL, 1};
    return lambda(0, &environment, closure);
  }
  if (!atomic_load_explicit(&pool.closed, memory_order_relaxed)) CreateWorkers(threads - 1);
  if (threads > pool.workers + 1) threads = pool.workers + 1;
  // Generated code gives each of num_task tasks as many iterations, rounded up; the last tasks may find none.
  int64_t step = extent / ((int64_t)threads * CHUNKS_PER_THREAD);
  uint32_t chunks = (uint32_t)(step <= 1 ? extent : (extent + step - 1) / step);
  uint32_t launch = ++pool.launch;
  pool.lambda = lambda;
  pool.closure = closure;
  pool.chunks = chunks;
  atomic_store_explicit(&pool.threads, threads, memory_order_relaxed);
  atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
  atomic_store_explicit(&pool.failed, 0, memory_order_relaxed);
  for (uint32_t i = 0; i < threads; ++i) {
    Block block = MakeBlock(launch, chunks * i / threads, chunks * (i + 1) / threads);
    atomic_store_explicit(&pool.slots[i].block, block, memory_order_release);
  }
  for (uint32_t i = 0; i + 1 < threads; ++i) Post(&pool.worker[i], launch);
  int own_failed = Work(0, launch);
  int lent = 0;
  for (uint32_t done = atomic_load_explicit(&pool.done, memory_order_acquire); done != chunks;) {
    uint32_t last = done;
    done = LookForChange(&pool.done, last, SPIN_NANOSECONDS);
    if (done != last) continue;
    lent |= LendCore(pool.worker, threads - 1);
    done = SleepUntilChange(&pool.done, last, &pool.caller_asleep);
  }
  if (lent) TakeCoreBack(pool.worker, threads - 1);
  if (launch % LAUNCHES_UNSEEN == 0) SendAbsentAway(pool.worker, threads - 1);
  int failed = (int)atomic_load_explicit(&pool.failed, memory_order_relaxed);
  atomic_store_explicit(&pool.busy, 0, memory_order_release);
  if (failed && !own_failed) {
    // The worker's thread has the error, this one's caller looks for it here.
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", "a task of a parallel loop failed on another thread");
  }
  return failed ? -1 : 0;
}

// The variable through which generated code finds its launcher. TVM's runtime sets it where it can see it, which it
// cannot since ours is hidden; being no weak definition like those of the generated code, it stands for all of them.
__attribute__((visibility("hidden"))) int (*__TVMBackendParallelLaunch)(ParallelLambda, void*, int) = Launch;

// The library's function "tvm_sparse_use_threads": threads of the loops that the calling thread starts from now on; 0
// for the environment's count.
__attribute__((visibility("default"))) int __tvm_ffi_tvm_sparse_use_threads(
    void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  if (count != 1 || arguments[0].type_index != kTVMFFIInt) {
    TVMFFIErrorSetRaisedFromCStr("TypeError", "tvm_sparse_use_threads takes one integer");
    return -1;
  }
  requested_threads = arguments[0].v_int64 <= 0 ? 0 : Clamp(arguments[0].v_int64);
  result->type_index = kTVMFFINone;
  result->v_int64 = 0;
  return 0;
}
