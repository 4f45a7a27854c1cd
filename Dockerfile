FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/rerank-sidecar && \
    /opt/rerank-sidecar/bin/pip install --no-cache-dir '.[server]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 sidecar
COPY --from=build /opt/rerank-sidecar /opt/rerank-sidecar
ENV PATH=/opt/rerank-sidecar/bin:$PATH \
    RERANK_SIDECAR_HOST=0.0.0.0 \
    RERANK_SIDECAR_LOG_FORMAT=json \
    MALLOC_ARENA_MAX=2
USER sidecar
EXPOSE 8080 50051
ENTRYPOINT ["rerank-sidecar"]
CMD ["serve"]
