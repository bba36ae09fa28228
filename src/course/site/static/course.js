// Draws the figures of a page as they come near the screen, and moves its lever panels.
// Without it the page still reads: captions, alternative text, tables and code are in the HTML.
(() => {
  'use strict'
  const NARROW = 620
  const root = document.documentElement
  const parse = (parent, kind) => JSON.parse(parent.querySelector(`:scope > script.${kind}`).textContent)

  let loading
  function plotly() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement('script')
      const amd = window.define // a loader of modules would swallow the global
      window.define = undefined
      script.src = `${root.dataset.content_root ?? './'}_static/plotly-cartesian.min.js`
      script.onload = () => { window.define = amd; resolve(window.Plotly) }
      script.onerror = () => reject(new Error('plotly.js did not load'))
      document.head.append(script)
    })
    return loading
  }

  // Figures are stored in the light palette; the dark one replaces it colour by colour.
  function coloured(value, palette) {
    if (typeof value === 'string') return palette[value] ?? value
    if (Array.isArray(value)) return value.map((each) => coloured(each, palette))
    if (value === null || typeof value !== 'object') return value
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each, palette)]))
  }

  function prepared(figure, width) {
    const { data, layout, config } = coloured(figure, root.dataset.theme === 'dark' ? window.coursePalette : {})
    const labels = (layout.annotations ?? []).filter((each) => each.name === 'series')
    const fitted = { ...layout, autosize: true, margin: { ...layout.margin, t: 24 } }
    delete fitted.title // the caption says it, and wraps
    if (width < NARROW) {
      fitted.annotations = (layout.annotations ?? []).filter((each) => each.name !== 'series')
      fitted.showlegend = layout.showlegend || labels.length > 0
      fitted.margin = { ...fitted.margin, l: 44, r: 10 }
      fitted.font = { ...layout.font, size: 12 }
    }
    return { data, layout: fitted, config: { ...config, responsive: false } }
  }

  function figureOf(element, figure) {
    const plot = element.querySelector('.course-plot')
    let drawn = null // the width it was drawn for; 0 while it is folded away
    const self = {
      set(next) {
        figure = next
        const { title, alt } = figure.layout.meta
        element.querySelector('figcaption').textContent = title
        plot.setAttribute('aria-label', alt)
        if (drawn !== null) self.draw()
      },
      async draw() {
        drawn = plot.clientWidth
        const { data, layout, config } = prepared(figure, drawn)
        const Plotly = await plotly()
        await Plotly.react(plot, data, layout, config)
        element.dataset.drawn = 'true'
      },
      redraw() { if (drawn !== null) self.draw() },
      resized() { if (drawn !== null && plot.clientWidth && plot.clientWidth !== drawn) self.draw() },
    }
    return self
  }

  function stateAt(panel, position) {
    const state = structuredClone(panel.state)
    for (const { path, values, index } of panel.changes) {
      const target = path.slice(0, -1).reduce((inner, key) => inner[key], state)
      target[path.at(-1)] = values[index[position]]
    }
    return state
  }

  function levers(section, figures) {
    const panel = parse(section, 'course-states')
    const form = section.querySelector('form')
    const numbers = section.querySelector('.course-numbers')
    const controls = [...form.querySelectorAll('.course-lever')]
    const chosen = (control) =>
      Number((control.querySelector('input[type=range]') ?? control.querySelector('input:checked')).value)
    const move = () => {
      let position = 0
      controls.forEach((control, at) => {
        const { values } = panel.levers[at]
        const value = chosen(control)
        position = position * values.length + value
        const slider = control.querySelector('input[type=range]')
        if (slider === null) return
        slider.setAttribute('aria-valuetext', values[value])
        control.querySelector('output').textContent = values[value]
      })
      const state = stateAt(panel, position)
      const cells = numbers.querySelectorAll('dd')
      Object.values(state.numbers).forEach((value, at) => { cells[at].textContent = value })
      figures.get(section.querySelector('.course-figure')).set(state.figure)
      section.dataset.position = position
    }
    form.addEventListener('input', move)
    form.addEventListener('submit', (event) => event.preventDefault())
    form.addEventListener('reset', () => setTimeout(move)) // after the browser has put the values back
  }

  function start() {
    const figures = new Map()
    for (const element of document.querySelectorAll('.course-figure'))
      figures.set(element, figureOf(element, parse(element, 'course-data')))
    document.querySelectorAll('.course-levers').forEach((section) => levers(section, figures))
    const near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue
        near.unobserve(target)
        figures.get(target).draw()
      }
    }, { rootMargin: '800px' })
    const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => figures.get(target).resized()))
    for (const element of figures.keys()) { near.observe(element); sizes.observe(element) }
    new MutationObserver(() => figures.forEach((each) => each.redraw()))
      .observe(root, { attributeFilter: ['data-theme'] })
    window.addEventListener('beforeprint', () => figures.forEach((each) => each.draw()))
  }

  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start)
  else start()
})()
