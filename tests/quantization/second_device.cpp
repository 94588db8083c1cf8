// A second device for tests on machines that have none: "mtia:0".
// It computes on the CPU, counts its bytes, and refuses operations whose tensors lie on two devices.
#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <unordered_map>

namespace {

constexpr auto kDevice = c10::DeviceType::MTIA;
const c10::DispatchKeySet kKeys(c10::DispatchKey::MTIA);

struct Ledger {
  std::unordered_map<void*, size_t> sizes;
  size_t live = 0, peak = 0;
  void* take(size_t bytes) {
    void* block = nullptr;
    TORCH_CHECK(posix_memalign(&block, 64, std::max<size_t>(bytes, 64)) == 0, "out of memory");
    sizes[block] = bytes;
    live += bytes;
    peak = std::max(peak, live);
    return block;
  }
  void give(void* block) {
    auto found = sizes.find(block);
    if (found == sizes.end()) return;
    live -= found->second;
    sizes.erase(found);
    std::free(block);
  }
};
Ledger& ledger() {
  static Ledger* const one = new Ledger;
  return *one;
}
void give_back(void* block) { ledger().give(block); }

struct CountingAllocator final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* block = ledger().take(bytes);
    return {block, block, &give_back, at::Device(kDevice, 0)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};
CountingAllocator counting;
REGISTER_ALLOCATOR(c10::DeviceType::MTIA, &counting);

// the same memory, seen as a CPU tensor
at::Tensor on_cpu(const at::Tensor& t) {
  if (t.is_cpu()) return t;
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), at::TensorOptions().dtype(t.scalar_type()));
}

at::Tensor make_empty(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                      std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(sizes, &counting, kKeys, c10::dtype_or_default(dtype), format);
}

at::Tensor make_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                        std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(sizes, strides, &counting, kKeys, c10::dtype_or_default(dtype));
}

at::Tensor copy_between(const at::Tensor& from, const at::Tensor& to, bool) {
  if (from.numel()) on_cpu(to).copy_(on_cpu(from));
  return to;
}

at::Tensor copy_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_between(from, to, false);
}

at::Scalar read_number(const at::Tensor& t) { return on_cpu(t).item(); }

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef wanted, std::optional<at::MemoryFormat>) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(wanted);
  auto* self_impl = self.unsafeGetTensorImpl();
  auto& storage = self_impl->unsafe_storage();
  size_t needed = self.element_size() * (self.storage_offset() + c10::multiply_integers(sizes));
  if (storage.nbytes() < needed) {
    auto larger = counting.allocate(needed);
    if (storage.nbytes()) std::memcpy(larger.get(), storage.data_ptr().get(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(larger));
    storage.set_nbytes(needed);
  }
  self_impl->set_sizes_contiguous(sizes);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return self;
}

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                    at::IntArrayRef output_padding, int64_t groups) {
  TORCH_CHECK(x.device() == weight.device(), "Expected all tensors to be on the same device in a convolution");
  std::optional<at::Tensor> offset;
  if (bias && bias->defined()) offset = on_cpu(*bias);
  auto made = at::convolution(on_cpu(x), on_cpu(weight), offset, stride, padding, dilation, transposed, output_padding, groups);
  return made.to(at::Device(kDevice, 0));
}

void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  bool here = false, elsewhere = false;
  auto look = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    here |= t.device().type() == kDevice;
    elsewhere |= t.device().type() != kDevice && t.dim() > 0;  // numbers may come from anywhere
  };
  for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) look(value.toTensor());
    if (value.isTensorList())
      for (const at::Tensor t : value.toTensorList()) look(t);
  }
  const auto& name = op.schema().name();
  const bool indexes = name == "aten::index" || name == "aten::index_put_";  // CUDA takes CPU indices too
  TORCH_CHECK(!(here && elsewhere) || indexes, "Expected all tensors to be on the same device in ", name);
  at::native::cpu_fallback(op, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, MTIA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

TORCH_LIBRARY_IMPL(aten, MTIA, m) {
  m.impl("empty.memory_format", &make_empty);
  m.impl("empty_strided", &make_strided);
  m.impl("_copy_from", &copy_between);
  m.impl("_copy_from_and_resize", &copy_and_resize);
  m.impl("_local_scalar_dense", &read_number);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("convolution_overrideable", &convolve);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
}

C10_REGISTER_GUARD_IMPL(MTIA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::MTIA>);

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("live", [] { return ledger().live; });
  m.def("peak", [] { return ledger().peak; });
  m.def("reset_peak", [] { ledger().peak = ledger().live; });
}
