// Runs the library of a package (its member mod.so) without Python:
//
//   run_package mod.so float32:1x3x224x224:image.bin [...]
//
// Each input is DTYPE:SHAPE:FILE, the file holding the elements in C order. Outputs are printed, and
// written in the same form to output_0.bin, output_1.bin, ... in the current folder.
//
// Needs the headers of apache-tvm-ffi; link with libtvm_ffi.so and (-Wl,--no-as-needed) libtvm_runtime.so.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/extra/module.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

namespace ffi = tvm::ffi;
using ffi::Tensor;

const DLDevice kCPU{kDLCPU, 0};
const int kPooledAllocator = 2;

// Compiled code reads tensors with aligned vector loads.
struct AlignedAlloc {
  void AllocData(DLTensor* tensor) {
    size_t whole_lines = (ffi::GetDataSize(*tensor) + 63) / 64 * 64;
    tensor->data = std::aligned_alloc(64, whole_lines);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

Tensor ReadInput(const std::string& argument) {
  std::stringstream parts(argument);
  std::string dtype, extents, path, extent;
  std::getline(std::getline(std::getline(parts, dtype, ':'), extents, ':'), path);
  std::vector<int64_t> shape;
  for (std::stringstream list(extents); std::getline(list, extent, 'x');) shape.push_back(std::stoll(extent));
  Tensor tensor = Tensor::FromNDAlloc(AlignedAlloc(), ffi::Shape(shape), ffi::StringToDLDataType(dtype), kCPU);
  size_t bytes = ffi::GetDataSize(tensor);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(static_cast<char*>(tensor.data_ptr()), bytes)) throw std::runtime_error("too short: " + path);
  return tensor;
}

void WriteOutput(const Tensor& tensor, int index) {
  std::ofstream file("output_" + std::to_string(index) + ".bin", std::ios::binary);
  file.write(static_cast<const char*>(tensor.data_ptr()), ffi::GetDataSize(tensor));
  std::cout << "output_" << index << ": " << ffi::DLDataTypeToString(tensor.dtype()) << tensor.shape() << "\n";
}

int main(int argc, char** argv) {
  ffi::Module vm =
      ffi::Module::LoadFromFile(argv[1])->GetFunction("vm_load_executable", true).value()().cast<ffi::Module>();
  vm->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  std::vector<Tensor> inputs;
  for (int i = 2; i < argc; ++i) inputs.push_back(ReadInput(argv[i]));
  std::vector<ffi::AnyView> args(inputs.begin(), inputs.end());
  ffi::Any result;
  vm->GetFunction("main").value().CallPacked(args.data(), args.size(), &result);
  // A model with one output returns it as it is, one with several an array of them.
  if (auto single = result.try_cast<Tensor>()) {
    WriteOutput(*single, 0);
  } else {
    int index = 0;
    for (const Tensor& output : result.cast<ffi::Array<Tensor>>()) WriteOutput(output, index++);
  }
  return 0;
}
