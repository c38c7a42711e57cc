#pragma once
namespace tl { template <class T, class E> class expected; }
