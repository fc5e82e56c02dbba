// Runs the launcher of parallel loops as generated code does, in all ways that it must stand: prints what went wrong.
#include "launch.c"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 700

static _Thread_local const char* raised;

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  (void)kind;
  raised = message;
}

typedef struct {
  int64_t extent;
  int hits[MOST];  // not atomic: each is written by one task, and read after the loop
  int64_t failing;
  int depth;
  int pause;
  int work;  // nanoseconds
  int pause_of_workers;
  int cpus_of_workers;  // that one may use after its pause
} Loop;

static void Run(Loop* loop, int announce);

static void PauseWorker(Loop* loop);

// What TVM generates for a parallel loop.
static int Body(int task_id, ParallelGroupEnv* environment, void* closure) {
  Loop* loop = closure;
  int64_t step = (loop->extent + environment->num_task - 1) / environment->num_task;
  int64_t begin = task_id * step, end = begin + step;
  for (int64_t i = begin; i < end && i < loop->extent; ++i) {
    loop->hits[i] += 1;
    if (loop->pause) usleep((useconds_t)loop->pause);
    for (int64_t stop = Nanoseconds() + loop->work; Nanoseconds() < stop;) {}
    if (loop->pause_of_workers && requested_threads == 0) PauseWorker(loop);
    if (loop->depth > 0) {
      Loop inner = {.extent = 5, .failing = -1, .depth = loop->depth - 1};
      Run(&inner, 1);
    }
    if (i == loop->failing) return -1;
  }
  return 0;
}

static void Fail(const char* what, int64_t extent) {
  printf("%s in a loop of %lld\n", what, (long long)extent);
  exit(1);
}

static void Run(Loop* loop, int announce) {
  memset(loop->hits, 0, sizeof(loop->hits));
  if (announce) tvm_sparse_announce_loop(loop->extent);
  int result = __TVMBackendParallelLaunch(Body, loop, 0);
  if ((result != 0) != (loop->failing >= 0)) Fail("a wrong result", loop->extent);
  if (loop->failing >= 0) return;
  for (int64_t i = 0; i < MOST; ++i) {
    if (loop->hits[i] != (i < loop->extent)) Fail("an iteration run not once", loop->extent);
  }
}

static void UseThreads(int64_t count) {
  TVMFFIAny argument = {.type_index = kTVMFFIInt}, result;
  argument.v_int64 = count;
  if (__tvm_ffi_tvm_sparse_use_threads(NULL, &argument, 1, &result) != 0) Fail("a refusal", count);
}

static void* ManyLoops(void* argument) {
  int64_t seed = (intptr_t)argument;
  for (int64_t i = 0; i < 400; ++i) {
    UseThreads(1 + (i + seed) % 5);
    Loop loop = {.extent = 1 + (i * 37 + seed) % MOST, .failing = -1};
    Run(&loop, i % 3 != 0);
  }
  return NULL;
}

static void InChild(void) {
  pid_t child = fork();
  if (child == 0) {
    ManyLoops((void*)1);
    exit(0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  if (status != 0) Fail("a failed child", 0);
}

#if defined(__linux__)
static void PauseWorker(Loop* loop) {
  cpu_set_t usable;
  usleep((useconds_t)loop->pause_of_workers);
  pthread_getaffinity_np(pthread_self(), sizeof(usable), &usable);
  loop->cpus_of_workers = CPU_COUNT(&usable);
}

static int CpusOf(const Worker* worker) {
  cpu_set_t usable;
  pthread_getaffinity_np(worker->thread, sizeof(usable), &usable);
  return CPU_COUNT(&usable);
}

// A worker that was moved may use all CPUs again after some time. On a busy machine it may have to move again before.
static void ExpectReturn(const Worker* worker, int cpus) {
  for (int attempt = 0; attempt < 50 && CpusOf(worker) != cpus; ++attempt) {
    Loop loop = {.extent = 4, .failing = -1, .work = 500000};
    usleep(AWAY_NANOSECONDS / 1000 + 1000);
    Run(&loop, 1);
  }
  if (CpusOf(worker) != cpus) Fail("a worker that does not return", CpusOf(worker));
}

// Workers that do not get on are moved, and return.
static void CheckMoves(void) {
  cpu_set_t usable;
  sched_getaffinity(0, sizeof(usable), &usable);
  int cpus = CPU_COUNT(&usable);
  if (cpus < 2) return;
  UseThreads(2);
  Loop loop = {.extent = 2, .failing = -1};
  Run(&loop, 1);
  Worker* worker = &pool.worker[0];

  ExpectReturn(worker, cpus);
  int cpu = sched_getcpu();
  if (!IsFree(worker, cpu)) Fail("a worker that is not free", cpu);
  SendAway(worker, cpu);
  if (CpusOf(worker) != cpus - 1) Fail("a worker not sent away", CpusOf(worker));
  ExpectReturn(worker, cpus);

  // It sleeps in the middle of its iteration, if it comes to have one.
  Loop held = {.extent = 2, .failing = -1, .work = 500000, .pause_of_workers = 20000};
  for (int attempt = 0; attempt < 50 && held.cpus_of_workers != 1; ++attempt) Run(&held, 1);
  if (held.cpus_of_workers != 1) Fail("a worker that was lent no core", held.cpus_of_workers);
  if (CpusOf(worker) != cpus - 1) Fail("a worker that stays on the caller's core", CpusOf(worker));
  ExpectReturn(worker, cpus);

  atomic_store(&worker->seen, atomic_load(&worker->posted) - LAUNCHES_UNSEEN);
  usleep(1000);
  SendAbsentAway(worker, 1);
  if (CpusOf(worker) != cpus - 1) Fail("an absent worker not sent away", CpusOf(worker));
}

// Workers stay on cores of their own, none of them the caller's, as far as there are enough.
static void CheckBinding(void) {
  int cpus[CPU_SETSIZE], bound[MAX_THREADS];
  cpu_set_t before, now;
  sched_getaffinity(0, sizeof(before), &before);
  int cores = UsableCores(cpus);
  UseThreads(cores + 2);
  Loop loop = {.extent = MOST, .failing = -1};
  Run(&loop, 1);
  sched_getaffinity(0, sizeof(now), &now);
  if (!CPU_EQUAL(&before, &now)) Fail("the caller bound", cores);
  for (uint32_t i = 0; i < pool.workers; ++i) {
    pthread_getaffinity_np(pool.worker[i].thread, sizeof(now), &now);
    if (cores < 2) {
      if (!CPU_EQUAL(&before, &now)) Fail("a worker bound to the only core", i);
      continue;
    }
    if (CPU_COUNT(&now) != 1) Fail("a worker not bound", i);
    if (IsFree(&pool.worker[i], sched_getcpu())) Fail("a bound worker that may be moved", i);
    for (bound[i] = 0; !CPU_ISSET(bound[i], &now); ++bound[i]) {}
    if (!CPU_ISSET(bound[i], &before)) Fail("a worker on a core that is not ours", i);
    for (uint32_t j = 0; j < i; ++j) {
      int shared = (int)(i - j) % (cores - 1) == 0;
      if ((bound[i] == bound[j]) != shared) Fail("workers on the wrong cores", i);
    }
  }
}
#else
static void PauseWorker(Loop* loop) { (void)loop; }
#endif

int main(int argc, char** argv) {
  (void)argv;
#if defined(__linux__)
  if (argc > 1 && strcmp(argv[1], "bind") == 0) {
    CheckBinding();
    return 0;
  }
  if (argc > 1 && strcmp(argv[1], "move") == 0) {
    CheckMoves();
    return 0;
  }
#endif
  for (int64_t threads = 1; threads <= 6; ++threads) {
    UseThreads(threads);
    for (int64_t extent = 1; extent <= MOST; extent += extent < 40 ? 1 : 53) {
      Loop loop = {.extent = extent, .failing = -1};
      Run(&loop, 1);
      Run(&loop, 0);
    }
    if (pool.workers != (uint32_t)threads - 1) Fail("a wrong number of workers", threads);
  }
  for (int i = 0; i < 30; ++i) {
    // Longer than idle threads look for work.
    Loop loop = {.extent = 6, .failing = -1, .pause = i % 2 ? 200 : 0};
    Run(&loop, 1);
    usleep(300);
  }
  Loop nested = {.extent = 40, .failing = -1, .depth = 2};
  Run(&nested, 1);
  Loop failing = {.extent = 64, .failing = 63, .pause = 20};
  Run(&failing, 1);
  failing.failing = 0;
  Run(&failing, 1);
  pthread_t callers[3];
  for (intptr_t i = 0; i < 3; ++i) pthread_create(&callers[i], NULL, ManyLoops, (void*)i);
  for (int i = 0; i < 3; ++i) pthread_join(callers[i], NULL);
  // An argument says that children are forked, which a checker of threads does not take.
  if (argc > 1) InChild();
  ManyLoops(NULL);
  TVMFFIAny text = {.type_index = kTVMFFIStr}, result;
  if (__tvm_ffi_tvm_sparse_use_threads(NULL, &text, 1, &result) == 0 || raised == NULL) Fail("no refusal", 0);
  UseThreads(100000);
  if (requested_threads != MAX_THREADS) Fail("too many threads", 0);
  return 0;
}
